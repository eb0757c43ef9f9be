"""The eight meanings of a reply."""

from enum import StrEnum


class ReplyClass(StrEnum):
    """Meaning of a server's reply; each member equals its plain string."""

    SENT = "sent"  # accepted
    RETRY = "retry"  # the moment: the same again later may work
    THROTTLE = "throttle"  # our rate, volume, connections or quota, even when the reply is 5xx
    PERMANENT_RECIPIENT = "permanent_recipient"  # this address or domain cannot receive
    PERMANENT_CONTENT = "permanent_content"  # this email is refused
    CONFIG = "config"  # our sender, domain, IP, DNS, relay right or use of the protocol
    AUTH = "auth"  # login refused or missing
    SUPPRESS = "suppress"  # recipient or provider says never again
