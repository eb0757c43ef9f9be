"""One sentence for the person who reads a refusal: what to do about it."""

from postier.drivers import reply_rules_account as account
from postier.drivers import reply_rules_email as email
from postier.drivers.reply_class import ReplyClass
from postier.drivers.reply_text import normalise, words

_LOGIN_ADVICE = (
    (
        words(r"application-specific password|invalidsecondfactor|\b5\.7\.9\b|app password"),
        "Gmail wants an app password here: switch on 2-step verification, create an app password and use it as the "
        "password, or change this account to OAuth2.",
    ),
    (
        words(r"badcredentials|username and password not accepted"),
        "User name or password are wrong; Gmail takes an app password or OAuth2, never the ordinary password.",
    ),
    (
        words(r"log ?in (?:with|via) your web|\b5\.7\.14\b"),
        "The provider wants a person to sign in once with a browser and confirm the access.",
    ),
    (
        words(r"smtpclientauthentication is disabled for the tenant|disabled for the tenant"),
        "SMTP AUTH is off for the whole Microsoft 365 organisation: an Exchange administrator has to allow it, "
        "for this mailbox at least, or the account moves to Microsoft Graph.",
    ),
    (
        words(r"smtpclientauthentication|smtp auth(?:entication)? is disabled|smtp_auth_disabled"),
        "SMTP AUTH is off for this mailbox: an Exchange administrator has to allow it, or the account moves to "
        "Microsoft Graph.",
    ),
    (
        words(r"basic auth|\b5\.7\.30\b"),
        "The server no longer takes a user name and password: change this account to OAuth2.",
    ),
    (
        words(r"\b5\.7\.139\b|security defaults|did not meet the criteria"),
        "A security rule of the Microsoft 365 organisation refuses this login: change to OAuth2, or ask the "
        "administrator for an exception.",
    ),
    (
        words(r"\b5\.7\.3\b"),
        "Microsoft refused the token or password: check that SMTP AUTH is on for the mailbox, that the app may send "
        "as it, and that the service principal was made with the object id of the enterprise application.",
    ),
    (
        words(r"account (?:is |has been )?(?:disabled|suspended|locked|blocked)|login is disabled|\b5\.7\.13\b"),
        "The provider has switched this login off: ask it why, and have it released.",
    ),
    (
        words(r"\bmechanism\b"),
        "The server does not take this kind of login: set auth to one it offers, or change the port.",
    ),
    (
        words(r"\b5\.7\.12\b|password (?:transition|change|expired)"),
        "The password must be renewed at the provider first.",
    ),
    (
        words(r"token|api ?key|oauth"),
        "The token or API key was refused: check that it is complete, not revoked or expired, and allowed to send.",
    ),
    (
        words(r"authentication (?:is )?required|not (?:been )?(?:authenticated|logged)|authenticate|\b5\.7\.57\b"),
        "The server wants a login: give this account a user name and a password or OAuth2.",
    ),
)

_CONFIG_ADVICE = (
    (
        account.OWN_MAILBOX,
        "The mailbox that sends is itself full: delete or archive mail in it, Sent Items included.",
    ),
    (
        account.SEND_AS,
        "The login may not send as this From address: use the mailbox's own address, or have Send As granted on it.",
    ),
    (
        words(account.WANTS_TLS.pattern, r"\b5\.7\.11\b|encryption required"),
        "The server wants an encrypted connection: set this account to STARTTLS (port 587) or implicit TLS (port 465).",
    ),
    (
        words(r"not verified|unregistered domain|\b5\.7\.750\b|failed the check in region"),
        "The provider does not know this sender address: verify the address or its domain there first.",
    ),
    (
        account.RELAY,
        "The server does not relay for us: check host, port and login, and that the provider lets this account send to "
        "other domains.",
    ),
    (
        words(r"\bptr\b|\br-?dns\b|reverse|\b5\.7\.25\b|cannot find your"),
        "The sending IP has no matching reverse DNS: have its owner set a PTR record that resolves back to the IP.",
    ),
    (
        words(r"\bdmarc\b|\b5\.7\.(?:26|509|515)\b"),
        "The sender's domain fails DMARC: publish SPF and DKIM for this provider and send from an aligned address.",
    ),
    (
        words(r"\bdkim\b|\b5\.7\.2[0-2]\b"),
        "The email has no valid DKIM signature: switch on DKIM for the sender's domain at the provider.",
    ),
    (
        words(r"\bspf\b|sender policy framework|\b5\.7\.2[34]\b"),
        "The sender's domain does not name this server in its SPF record: add the provider to the record.",
    ),
    (
        words(r"too many (?:invalid|bad|unknown)"),
        "Too many unknown addresses were tried: clean the list of recipients.",
    ),
    (
        words(r"\bhops\b|\bloop"),
        "The email went in a circle between servers: check where the recipient's address forwards to.",
    ),
    (
        words(r"\b(?:your|th(?:is|e)) (?:country|region|location)\b|\bgeo"),
        "The server takes no mail from our country or network: ask its postmaster for an exception.",
    ),
    (
        words(r"domain not found|domain (?:does not|must) exist|sender.{0,40}domain.{0,20}not (?:found|exist)"),
        "The domain of the sender address is not in DNS: check its spelling and its MX and A records.",
    ),
    (
        words(r"\b(?:helo|ehlo) (?!first|before|/)|bad (?:helo|ehlo)"),
        "The server dislikes our EHLO name: set it to a host name that exists in DNS.",
    ),
    (
        words(
            r"\b5\.1\.8\b|\b5\.7\.(?:50[1-3]|511|7\d\d)\b|bad outbound sender|banned sender|spam abuse|tenant",
            r"outgoing (?:e?mails? |messages? )?(?:\S++ ){0,4}(?:suspended|blocked|disabled)",
            r"your (?:account|mailbox) (?:is |has been |was )?(?:suspended|blocked|disabled|restricted)",
        ),
        "The provider has blocked this sender for suspected spam: an administrator has to release it there.",
    ),
    (
        account.LISTED,
        "The sending IP, host or domain is on a blocklist or in bad repute: follow the link in the reply, "
        "and ask the provider of the server.",
    ),
    (
        account.SENDER_DNS,
        "The sender's domain or server is not set up as the recipient wants: check SPF, DKIM, DMARC, PTR.",
    ),
    (
        account.SENDER,
        "The server refused the sender address: check its spelling, that its domain exists, and that this account "
        "may use it.",
    ),
    (
        account.PROTOCOL,
        "The server did not follow the conversation: check port and TLS mode, and a firewall in between.",
    ),
    (
        words(r"erroraccessdenied|access is denied|forbidden"),
        "The application lacks the permission to send for this mailbox.",
    ),
)

_THROTTLE_ADVICE = (
    (
        words(r"concurren|connections|sessions|thread limit|connection (?:rate|frequen|limit)"),
        "Too many connections at once: lower max_connections of this account; sending goes on by itself.",
    ),
    (account.TOO_MANY_RECIPIENTS, "Too many recipients in one email: lower max_recipients of this account."),
    (
        words(r"log ?in attempts|too many login|too many (?:failed )?auth|failed attempts"),
        "Too many logins: wait; keep sessions open rather than log in for each email.",
    ),
    (
        words(r"hourly|per hour|this hour"),
        "The allowance of this hour is used up: set per_minute of this account so that an hour stays inside it.",
    ),
    (
        words(r"daily|per day|24 ?h|submission ?quota|sending limit|\b5\.4\.5\b|\b5\.2\.2\b|credits|monthly"),
        "The quota of this account is used up: wait for its reset, raise the plan, or lower per_day to stay inside.",
    ),
    (
        words(r"\bspf\b|\bdkim\b|\bdmarc\b|unauthenticated|\bptr\b"),
        "The provider slows us down because the sender's domain is not authenticated: set up SPF, DKIM and DMARC.",
    ),
    (
        words(account.REPUTATION_RATE.pattern, "unsolicited"),
        "The recipient's provider slows us down for reputation: send less and only wanted mail for some days.",
    ),
)

_RETRY_ADVICE = (
    (account.GREYLISTED, "Nothing to do: greylisting, the next attempt gets through."),
    (email.FULL, "The recipient's mailbox or server is full for now: postier tries again."),
    (
        words(r"wrong.version|unknown protocol|ssl|tls|handshake|record layer"),
        "The TLS handshake failed: check that port and TLS mode belong together (465 implicit TLS, 587 STARTTLS).",
    ),
    (
        words(r"name or service|name resolution|getaddrinfo|nodename|host not found"),
        "The host name does not resolve: check its spelling and the DNS of this machine.",
    ),
    (
        words(r"connection refused|timed? ?out|unreachable|no route"),
        "No connection: check host and port, and that the network lets this port out (port 25 is often closed).",
    ),
    (
        words(r"\b4\.7\.\d+ .{0,40}auth|auth.{0,20}(?:fail|problem|tempor)"),
        "The login service has trouble: postier tries again.",
    ),
    (account.LISTED, "The sending IP may be on a blocklist: look it up if this lasts for more than a day."),
)

_RECIPIENT_ADVICE = (
    (
        email.INSIDERS_ONLY,
        "This recipient takes mail from inside its own organisation only: its administrator can allow us.",
    ),
    (email.FULL, "The recipient's mailbox is full: tell them by another way, and replay when there is room."),
    (
        words(r"disabled|inactive|suspend|locked|frozen|closed|deactivated|blocked|expired|desactiv|deaktiviert"),
        "The recipient's mailbox is disabled: ask them for another address.",
    ),
    (
        words(r"null mx|does(?:n't| not) accept|domain|host|\b5\.1\.(?:2|10)\b|\b5\.4\.4\b|route"),
        "The recipient's domain takes no mail: check the part after the @ for a typing error.",
    ),
    (
        words(r"smtputf8|internationali|\b5\.6\.7\b"),
        "The recipient's server cannot take an address with non-ASCII letters.",
    ),
    (words(r"moved|forward"), "The recipient has moved: ask them for the new address."),
    (email.GONE, "There is no such mailbox: check the address for a typing error, or remove it."),
)

_CONTENT_ADVICE = (
    (email.VIRUS, "A virus scanner or attachment rule refused the email: look at its links and attachments."),
    (email.TOO_BIG, "The email is too big for this server: make it smaller, or send a link instead of the attachment."),
    (email.LINK_LISTED, "A link or domain in the email is on a blocklist: remove it or have the domain delisted."),
    (email.MESSAGE_FORMAT, "The headers or the encoding of the email were refused: report it with the server's words."),
    (email.SPAM_WORDS, "The email was taken for spam: look at its wording and links, and at SPF, DKIM and DMARC."),
    (email.POLICY, "A policy of the recipient's side refused this email: read the reply and ask their postmaster."),
)

_SUPPRESS_ADVICE = (
    (words(r"unsubscrib"), "The recipient has unsubscribed: do not send to this address again."),
    (words(r"spam|complain"), "The recipient reported our mail as spam: do not send to this address again."),
    (
        words(r"bounce"),
        "The address bounced before and is on the provider's suppression list: correct it, or take it off there.",
    ),
)

_ADVICE = {
    ReplyClass.AUTH: (_LOGIN_ADVICE, "The login was refused: check user name, password and the kind of login."),
    ReplyClass.CONFIG: (_CONFIG_ADVICE, "The server refuses us, not this recipient: check the account's settings."),
    ReplyClass.THROTTLE: (_THROTTLE_ADVICE, "We send too fast for this server: lower the limits of this account."),
    ReplyClass.RETRY: (_RETRY_ADVICE, "Nothing to do yet: postier tries again."),
    ReplyClass.PERMANENT_RECIPIENT: (
        _RECIPIENT_ADVICE,
        "This address cannot receive mail: check it with the recipient.",
    ),
    ReplyClass.PERMANENT_CONTENT: (
        _CONTENT_ADVICE,
        "The server refused this email: read the reply, change it, replay it.",
    ),
    ReplyClass.SUPPRESS: (_SUPPRESS_ADVICE, "Recipient or provider want no mail to this address: do not send again."),
    ReplyClass.SENT: ((), "Nothing to do: the server accepted the email."),
}


def advice(code: int | None, enhanced: str | None, text: str, reply_class: ReplyClass | str) -> str:
    """Return one plain sentence on what a person should do about a reply that was classified as `reply_class`.

    The sentence holds nothing of the reply itself, so it may be logged and shown. A `reply_class` that is none of the
    eight raises ValueError.
    """
    sentences, default = _ADVICE[ReplyClass(reply_class)]
    said = f"{enhanced or ''} {normalise(text)[0]}"
    if code == 534:
        said = f"5.7.9 {said}" if "5.7." not in said else said
    return next((sentence for rule, sentence in sentences if rule.search(said)), default)
