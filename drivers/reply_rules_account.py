"""Words of replies that speak of us: our rate, login, relay right, domain, IP, sender address, protocol."""

from postier.drivers.reply_text import words

# Our rate, volume, connections, quota.
OWN_RATE = words(
    r"(?<!user has )too many (?!unwanted|spam)(?:\S++ ){0,3}(?:connections?|sessions|messages(?! (?:on|in) )"
    r"|(?:e-?)?mails"
    r"|logins?|requests|attempts|commands per)",
    r"(?:connections?|sessions?|recipients?|rate) limits?\b|\bonly (?:\S++ ){0,3}(?:msgs?|messages|e?mails) per\b",
    r"\btoo (?:fast|quickly|frequent)|slow(?:ing)? down|throttl|concurren(?:t|cy)|\bfrequency\b|rate[ -]?limit",
    r"(?:message|sending|submission|send|relay|connection|unusual|high|excessive) rate|at a rate\b",
    r"(?:volume|number) of (?:\S++ ){0,2}(?:messages|e?mails?|connections|recipients).{0,40}(?:exceed|limit"
    r"|restrict)",
    r"(?:excessive|unusual|high|large) (?:\S++ ){0,2}(?:volume|amount|number) of|excessive volume",
    r"(?:mail|message) flood",
    r"(?:submission|sending|send|relay|daily|hourly|monthly|message|queue|organization|recipients) ?quota",
    r"quota (?:for|of) (?:sending|messages|the day)|quotaexceeded.{0,20}submission|submissionquota",
    r"(?:daily|hourly|monthly|sending|sender|relay|submission|message(?! size)|mail(?! size)|outgoing|outbound"
    r"|connections?|thread"
    r"|transaction)(?: \S++){0,4} (?:limit|threshold|maximum|allowance)s?(?: \S++){0,5} (?:exceeded|reached|hit)",
    r"(?:exceed(?:ed|s|ing)?|reached|over|hit|above)(?: \S++){0,6} (?:limits?|threshold|quota"
    r"|maximum number)(?: \S++){0,6} (?:for (?:the )?(?:day|hour|send)|within|connections|messages|recipients per"
    r"|hour|hourly|daily|today)",
    r"(?<!size )(?:exceed(?:ed|s)?|reached)(?: \S++){0,4} (?:daily|hourly|monthly|permitted|sending|relay"
    r"|message rate"
    r"|connection)\b",
    r"per[ -](?:second|minute|hour|day|month)\b.{0,40}(?:exceed|limit|reach|throttl)",
    r"(?:limit|exceed|reach|many).{0,60}\bper (?:second|minute|hour|day|month)\b|\bthis hour\b|within \S+ range",
    r"tenant has exceeded|(?<!score )exceeded threshold",
    r"(?:credits?|plan|account) (?:limit )?(?:exceeded|exhausted|used up)",
    r"max(?:imum)?\.? (?:number of )?(?:messages?|mails?|connections?)(?! size)(?: \S++){0,3} (?:per|reached"
    r"|exceeded|from)",
    r"\byou(?:'ve| have)? (?:already )?(?:exceeded|reached|hit)\b.{0,40}(?:quota|limit)",
    r"\byour (?:\S++ ){0,3}(?:quota|limit)s? (?:\S++ ){0,3}(?:exceed|reach|used)",
    r"(?:quota|limit) (?:\S++ ){0,2}(?:for|of) (?:this |the )?sender",
    r"limits? for your account|too many letters",
    r"exceed\w{0,3} \d{1,9} (?:messages|e?mails|recipients) per|connections \d{1,9} exceed",
    r"trop de (?:connexions|messages|mails|courriels|requetes|destinataires par)",
    r"zu viele (?:verbindungen|nachrichten|mails)|demasiad[oa]s (?:conexiones|mensajes|correos)",
    r"tropp[ie] (?:connessioni|messaggi|email)|muit[oa]s (?:conexoes|mensagens|emails)",
    r"te veel (?:verbindingen|berichten)|limite (?:d'envoi|diaria|giornalier|de envi)|versandlimit|sendelimit",
    r"发送频率|频率(?:过高|限制)|送信数|接続数",
)

# With a 4xx: slowed down for our reputation.
REPUTATION_RATE = words(
    r"reputation|(?:message|mail|mail server|messages) (?:from |to )?\S{0,40} ?(?:has been )?temporarily deferred",
    r"(?:temporarily )?deferred due to (?:user|unexpected|excessive|volume|poor|low)|unsolicited mail originating",
    r"too many spams?\b|excessive|unexpected volume|user complaints|server busy|\bbusy\b.{0,30}try",
)

# The mailbox we submit from is full.
OWN_MAILBOX = words(
    r"storedrv\.(?:submission|clientsubmit).{0,80}(?:quota|mailbox full)|mailbox full; storedrv\.submission",
    r"(?:your|sender'?s|sending) (?:own )?(?:mailbox|inbox|mail ?box|account|storage)(?: \S++){0,5} (?:full"
    r"|over ?quota|quota)",
    r"(?:full|over ?quota)(?: \S++){0,4} (?:your|sender'?s|sending) (?:mailbox|inbox|mail ?box)",
)

# No right to send as this address.
SEND_AS = words(
    r"send ?as ?denied",
    r"(?:permissions?|right|allowed|authori[sz]ed|able) to send (?:as|on behalf|from|mail (?:as|on behalf))",
    r"sender(?: address)?(?: rejected)?:? not owned|not owned by user",
    r"(?:from|sender) (?:address )?(?:does not|doesn't) match",
)

# Login missing or refused.
LOGIN = words(
    r"authentication (?:is )?(?:required|needed|unsuccessful|failed|failure|credentials|rejected|not allowed|denied)",
    r"(?:client|you|user|session|sender)(?: is| are|'re| was| were| not)* not (?:been )?(?:authenticated|logged ?in)",
    r"not authenticated to|log ?in (?:with|via|first|required|fail|incorrect)",
    r"login (?:is )?(?:failed|denied|disabled|invalid)|\bauth error|\b(?:bad|wrong) auth",
    r"auth(?:entication|ori[sz]ation)? (?:was )?(?:aborted|failed|cancel)",
    r"requires? (?:smtp )?authentication|allowed with authentication|cancell?ed authentication",
    r"basic auth(?:entication)? (?:is )?(?:disabled|not supported|blocked|not allowed)",
    r"smtp auth(?:entication)? (?:is )?disabled|smtpclientauthentication|application-specific password|app password",
    r"username and password|bad (?:username|password|credentials)",
    r"(?:invalid|incorrect|wrong|bad)(?: \S++){0,2} (?:credentials|password|login|api ?key|token)(?! for relay)",
    r"(?:invalid|incorrect|wrong|bad) user ?name(?! for relay)",
    r"(?:credentials|password|token|api ?key)(?: \S++){0,2} (?:invalid|incorrect|expired|revoked|rejected"
    r"|not accepted|not valid)",
    r"authenticat(?:e|ion) (?:first|before|yourself|to send)",
    r"(?:auth|smtp-auth|smtp auth) (?:required|invalid|failed|first)|invalidauthenticationtoken",
    r"(?:must|needs? to) be (?:authenticated|logged ?in)|smtp auth is required",
    r"unauthori[sz]ed client|invalid_client|invalid_grant|must (?:first )?authenticate",
    r"authentification (?:requise|necessaire|obligatoire|echou|refus)",
    r"(?:identifiants?|mot de passe) (?:invalide|incorrect|errone)|authentifizierung (?:erforderlich|fehlgeschlagen)",
    r"anmeldung (?:erforderlich|fehlgeschlagen)|falsches (?:pass|kenn)wort",
    r"autentica(?:cion|cao|zione) (?:requerida|necesaria|fall|falh|fallita|richiesta|necessaria|neces)",
    r"authenticatie (?:vereist|mislukt)|认证失败|身份验证|認証(?:に失敗|が必要|エラー)",
)

# TLS first.
WANTS_TLS = words(
    r"(?:must|should) (?:first )?issue (?:a )?starttls|starttls (?:is )?(?:required|first|command first|must)",
    r"(?:tls|ssl|encryption) (?:is )?(?:required|needed)",
    r"(?:require|requires|need|needs|use|support) (?:an? )?(?:encrypted|secure|tls|ssl|starttls)\b",
    r"requires? (?:tls|starttls|encryption)",
)

# No right to relay.
RELAY = words(
    r"relay(?:ing|ed)?\W?(?: \S++){0,3} (?:denied|not (?:permitted|allowed|authori[sz]ed)|prohibited|refused|rejected"
    r"|forbidden)",
    r"relay(?:ing)? (?:e?mail|messages) (?:to|for) \S++ (?:is )?not (?:permitted|allowed)",
    r"(?:unable|not configured|not allowed|not permitted|not authori[sz]ed|refus\w{1,6}+|cannot|can't|don't|do not"
    r"|will not|won't)(?: to)? relay",
    r"\b(?:no|open|insecure|denied|as a|mail) relay(?:ing)?\b|(?:for|to) relay\b|rcpthosts|tenantattribution",
    r"relais (?:refuse|interdit|non)|relay(?:ing|en)? (?:nicht|verweigert|abgelehnt|niet)",
    r"not authorized to (?:use this server|send (?:e?mail )?directly)",
    r"(?:use|through) (?:the |your )?(?:smtp (?:relay|server) (?:of|at)|isp)",
)

# SPF, DKIM, DMARC, reverse DNS, HELO.
SENDER_DNS = words(
    r"\bspf\d?\b|sender policy framework|\bdkim\b(?!-sig)|\bdmarc\b|sender[- ]?id\b|purported responsible",
    r"domain-?keys|\barc\b seal|authentication (?:information|checks?|results?)\b",
    r"unauthenticated (?:e?mail|sender|message)|sender is unauthenticated",
    r"required authentication level|must (?:either )?authenticate with|anti-?spoof|spoof(?:ed|ing)|\bptr\b",
    r"\br-?dns\b|reverse[- ]?(?:dns|lookup|resol|record|address|mapping|host)|(?:forward|fcr)[- ]?dns",
    r"mismatches client|(?:ip|host) ?name lookup|cannot find your (?:reverse )?(?:hostname|host|address)",
    r"dns (?:mx|ptr|a or|record|check|error|fail|lookup)|invalid domain name|domain name is invalid|no a, aaaa",
    r"domain must exist|(?:resolve|find|lookup) (?:your )?(?:client |host ?name|ip\b)|\b(?:helo|ehlo)\b",
    r"may not be mail exchanger|dynamic(?:ally)? (?:ip|address|host|assigned)|residential ip",
    r"generic (?:ip|reverse|host)|ipv6 (?:sending|address)|over ipv6",
)

# Our IP, host or domain on a blocklist or in bad repute.
LISTED = words(
    r"\br(?:ea)?bls?\b|\bdns-?[bw]?ls?\b|\bdnsbl|drbl\b|(?:black|block|deny)[ -]?list|blok-?list|spamhaus|spamcop",
    r"sorbs|barracudacentral|barracuda reputation|cloudmark|senderscore|senderbase|hostkarma|spamrats|uceprotect",
    r"abusix|invaluement|psbl|njabl|\bxbl\b|\bsbl\b|\bcbl\b|lashback|symantec zodiac|dnsbl-lookup|ipcheck",
    r"sender intelligence|brightmail|mailspike|reputation|blocked using(?! (?:spam|content|pattern|filter))",
    r"blocked for spam|listed (?:at|in|on|by)\b",
    r"\(bl\)|service unavailable;? client|banned (?:sender|sending|ip)|spammer",
    r"(?<!anti-)\bspam (?:abuse|sender|source|server|bot|origin)",
    r"(?:sending|sent|source of|sends) (?:too much )?spam|block for spam",
    r"known spam(?! sig)|(?:refused|rejected|blocked|denied|banned)(?: -| from|:|;"
    r"|,)? [<\[(]?\d{1,3}(?:\.\d{1,3}){3}",
    r"\d{1,3}(?:\.\d{1,3}){3}[>\])]? (?:is |was |has been )?(?:refused|rejected|blocked|denied|banned)",
    r"(?:your|client|sender|source|sending|connecting|originating|bad|invalid|this|the|mail from|from) ip\b(?! not)",
    r"ip (?:address )?(?:is |has been |was )?(?:not allowed|blocked|banned|rejected|denied|refused|listed|source)",
    r"adresse ip|ip-adresse|direccion ip|indirizzo ip|endereco ip|ip based|domain based|from this ip",
    r"(?:server|host|network|system)(?: \S++){0,2} (?:blocked|banned|blacklisted)\b",
    r"client host (?:\S++ )?(?:rejected|blocked|banned|denied|refused)",
    r"host (?:network )?(?:not allowed|rejected|denied|refused)",
    r"your (?:host|server|network|isp|mail ?server|domain|access|country)\b(?: \S++){0,8} (?:is|are|was|has|have"
    r"|been|not|block|reject|den|refus|ban)",
    r"connections? (?:not |will not be |from \S+ )?(?:accepted|refused|rejected|denied)",
    r"not accept(?:ing|ed)? connections|allowed to connect|weren't sent\. please|geo-?(?:ip|graph|loc)|country",
    r"internet service provider|access (?:to|from) (?:this|mail)|no smtp service|not welcome|\bclient host\b",
    r"block-?send-?er|too many (?:invalid|bad|unknown|non-?exist)|from your (?:location|country)",
    r"(?:not|n\'t|no longer|refus\w{1,6}+)(?: to)? (?:accept(?:ing|ed)?|receiv\w{1,6}+|allow(?:ed"
    r"|ing)?)(?: \S++){0,3} from\b",
    r"no access for th(?:is|e) (?:ip|domain|user|sender|host)|ip in prison|due to abuse|\bspams from|liste noire",
    r"lista (?:nera|negra|de bloqueo)|schwarze liste|zwarte lijst|黑名单|ブラックリスト|bizsmtp",
)

# The sender address.
SENDER = words(
    r"your (?:account|mailbox|user ?name|login|subscription|plan|api|message rate)\b(?! (?:administrator|provider))",
    r"(?:disabled|blocked|suspended|restricted|prevented|barred|not allowed|not permitted) (?:for|from|to) (?:send"
    r"|use)",
    r"\b(?:outgoing|outbound)\b|\b(?:for|of|no such|unknown|the|this) sender\b(?! (?:policy|not in))|\(sender\)",
    r"for your (?:domain|host|server)|\bapi (?:user|key)\b|license expired",
    r"(?:bad|invalid|unknown|illegal|unroutable|unverified|forged|fake|null|blocked|rejected|unacceptable"
    r"|unregistered"
    r"|outbound|verify|from)(?: \S++){0,2} (?:sender|senders|return[- ]path|reverse[- ]path)\b",
    r"(?:unregistered|outbound|from) domains?\b",
    r"\bsenders?(?:'s)?(?: \S++){0,4} (?:reject|denied|invalid|unknown|not |refus|block|ban|unverif|unvalid|verif"
    r"|has null"
    r"|does not|doesn't|must|could not|cannot|syntax|need|mismatch|unresolv)",
    r"(?:domain|host) of (?:the )?(?:sender|return)|unroutable sender|(?:sender|postmaster) verif",
    r"verification failed while|callout|null mx.{0,20}sender",
    r"(?:mail ?from|return[- ]path|envelope from|from domain|from:?) (?:\S++ ){0,3}(?:domain|address|is invalid"
    r"|invalid|rejected|denied|refused|not allowed|does not exist|unresolv)",
    r"(?:address|domain|identity|identities|sender|email)(?: \S++){0,2} (?:is |are |has )?(?:not"
    r"|n't) (?:been )?(?:verified|confirmed|validated|registered)(?! (?:user|gateway|mailbox))",
    r"failed the check in region|mail sending denied|not allowed to send|no identity change",
    r"account (?:is |has been )?(?:suspended|disabled|blocked) (?:for|from) send",
    r"(?:emetteur|expediteur|absender|afzender|remitente|mittente|remetente)\S{0,8}(?: \S++){0,4} (?:invalid"
    r"|inconnu|refus|rejet|bloq|ungultig|abgelehnt|unbekannt|gesperrt|ongeldig|geweigerd|rechaz|desconoc|non valid"
    r"|rifiut|recus|rejeit)",
    r"发件人|送信者",
)

# A high rate that is called spam: a block, not a limit.
UNSOLICITED = words(r"(?:unsolicited|spam)(?: \S++){0,3} (?:originating|coming|from)")

# A gateway speaking HTTP through a 5xx.
OUTAGE = words(
    r"bad gateway|gateway time-?out|temporarily|try (?:again )?later|^service (?:is )?unavailable\W*$",
    r"^internal (?:server )?error\W*$",
)

# Commands and syntax.
PROTOCOL = words(
    r"syntax|synchroni[sz]ation|command line|line length exceeded|\bmail ?loop|\bloop(?:ing)?\b|too many hops",
    r"sequence",
    r"(?:bad|unknown|unrecogni[sz]ed|unsupported|invalid|need|expected|send|no such) (?:\S++ ){0,2}(?:command"
    r"|parameter|argument)",
    r"command (?:not|unknown|unrecog|rejected)|(?:parameter|option)s? not|protocol (?:error|violation)",
    r"(?:rcpt|mail|data) first|need (?:rcpt|mail)|need fully-qualified|not implemented|does not support|pipelin",
)

# Our server or domain is named: no list of the recipient is meant.
SPEAKS_OF_US = words(
    r"client host|\bip\b|\bhelo\b|sender address|\bspf\b|\bdkim\b|\bdmarc\b|\bptr\b|reverse dns|reputation",
    r"\brbls?\b|dnsbl",
    r"your (?:server|host|domain|network)|\brelay",
)

# Anything of ours a reply can be about. One such word is enough to doubt that the recipient is meant.
POINTS_AT_US = words(
    r"\bsend(?:er'?s?|ers|ing|-as)\b|\bsent (?:by|from|too)\b|mail ?from",
    r"\bfrom(?::| (?:address|domain|your|this|the ip|ip))|(?:source|remote|originating|submitting) (?:host|server"
    r"|address|system|mta)",
    r"your (?:\S++ )?(?:ips?|server|hosts?|domain|network|system|isp|provider|country|region|access"
    r"|organi[sz]ation|software)\b",
    r"\bclient\b|network|forge|spoof|\bips?\b|ip-adress|connections?\b|connecting",
    r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)",
    r"dynamic|dial-?up|residential|country|geo|firewall|security",
    r"\bspf\b|\bdkim\b|dmarc|\barc\b|\bptr\b|\br?dns\b|reverse|\bmx record|\bhelo\b|\behlo\b|\besmtp\b",
    r"spam|\babus(?:e|ive)\b|unsolicited|\bbulk\b|complain|reputation|polic(?:y|ies)|prohibit",
    r"black ?list|(?:block|deny|drop)[ -]?list|\brbls?\b|dnsbl|\bbl\b|\blisted (?:at|in|on|by)\b|customi[sz]ed-block",
    r"greylist|whitelist|allow-?list|\b(?:is|been|are) (?:blocked|banned|barred)\b|\bdeferred\b",
    r"relay(?!=|.{0,12}recipient table)|authenti|authori[sz]|credential|permission|\blog ?in\b|\btls\b|certificate",
    r"encrypt|\brates?\b|frequen|throttl|too (?:many|much|fast)|\blimit(?:s|ed)?\b",
    r"(?:accept|deliver)\w{0,4}+ (?:\S++ ){0,2}(?:this|your) (?:e-?mail|message)|\bheaders?\b|\bsubject\b|parameter",
    r"\bcommand\b",
)

# Come back in some minutes.
GREYLISTED = words(r"gr[ea]y-?(?:list|dat)")

# No reply at all.
CONNECTION = words(
    r"connect|reset by peer|timed? ?out|timeout|broken pipe|\beof\b|unreachable|refused|closed|no route",
    r"name resolution|temporary failure|getaddrinfo|ssl|tls|handshake|disconnect",
)

# Recipients of one email.
TOO_MANY_RECIPIENTS = words(
    r"too many (?!invalid|bad|unknown)(?:\S++ )?(?:recipients|rcpts?)",
    r"number of (?:recipients|rcpts?)\b.{0,20}(?:over|exceed)|trop de destinataires|zu viele empfanger",
)
