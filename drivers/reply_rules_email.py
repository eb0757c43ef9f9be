"""Words of replies that speak of one email or of its recipient."""

from postier.drivers.reply_text import words

# A link in the email is on a blocklist.
LINK_LISTED = words(
    r"(?:rejected|blocked|listed) (?:uri|url|content)\b",
    r"uribl|surbl|ivmuri|(?:blacklisted|listed|blocked|spam|bad|malicious|suspicious|phishing) (?:url|uri|link)s?",
    r"(?:url|uri|link)s? (?:in|within|listed|found|black|block)|having a domain (?:present|listed)",
    r"(?:message|mail|body|content) contains? .{0,30}(?:url|link|domain)",
)

# Headers or encoding.
MESSAGE_FORMAT = words(
    r"header(?:s)? (?:error|too|are not|are missing|not found|is not|is missing|missing|based|exceed|value|line"
    r"|size|invalid|not)",
    r"(?:duplicate|multiple|missing|invalid|bad|illegal|disallowed|more than one|forbidden|message"
    r"|no)(?: \S++){0,3} header\b",
    r"valid (?:address )?(?:in (?:the )?)?from: ?header|from: header,? or|(?:valid )?message-id: ?header",
    r"rfc[ -]?\.?(?:2822|5322|822|2047)(?! ?from)(?:\b|[a-z])(?!.{0,30}domain)",
    r"mal-?formed(?! (?:address|recipient|sender))|expected mime|(?:not|n't) (?:comply|conform)\b|\bcr character",
    r"wrong(?:ly)? format|exactly one from|subject (?:is )?(?:mandatory|missing|required)|\bhtml tag",
    r"mime (?:type|error|structure|part)|invalid mime|\bbare (?:lf|cr|line)|8-?bit data|invalid characters|non-ascii",
    r"character sets?\b|(?<!command )line (?:limit|length|too long)|lines? too long|encoded-word",
    r"\bboundar(?:y|ies)\b",
    r"encoding (?:error|not)|pars(?:e|ing) (?:the |your )?(?:message|mail(?! from)|header)",
    r"unpars\w{2,6}+ (?:from|header|message)|(?:multiple|blank|missing|empty) from\b",
)

# Virus, attachment kind.
VIRUS = words(
    r"virus|infected|malware|trojan|phish|eicar|\bworm\b|ransom",
    r"(?:illegal|banned|prohibited|forbidden|blocked|dangerous|executable|bad|disallowed"
    r"|unsafe) (?:\S++ )?(?:attachment|file|extension|content)",
    r"(?:restricted|unacceptable|protected|encrypted) (?:attachment|file|zip|archive)",
    r"accept(?:ing)? (?:e?mail )?with attach",
    r"attachment.{0,40}(?:not (?:allowed|permitted|accepted)|blocked|prohibited|banned|reject|forbidden|limit)",
    r"security (?:issue|threat|risk)|file (?:extension|type)s?\b|ウイルス|病毒",
)

# Size of the email, not of the mailbox.
TOO_BIG = words(
    r"(?:message|mail|e-?mail|data|content|body|headers?|attachment)s?(?: \S++){0,3} (?:size limit|too (?:large"
    r"|big|long)"
    r"|exceeds?|exceeded|larger than|oversized?)(?! (?:storage|.{0,12}per (?:hour|day|minute)))",
    r"(?:size|length)(?: \S++){0,5} (?:exceed|too|limit|maximum|is over|larger|greater|violat)",
    r"(?:max(?:imum)?|exceed\w{0,6}+|over)(?: \S++){0,4} (?:message |mail |file )?size|\btoo (?:large|big)\b",
    r"entity too large|(?:message|courriel|mail) (?:est )?trop (?:gros|volumineux|grand|long)",
    r"nachricht (?:ist )?zu gros|mensaje (?:es )?demasiado grande|messaggio troppo grande",
    r"mensagem (?:muito|demasiado) grande|bericht (?:is )?te groot|taille (?:maxi|du message)|邮件(?:过大|太大)",
    r"大きすぎ",
)

# Called spam.
SPAM_WORDS = words(
    r"spam|unsolicited|junk ?mail|\bube\b|\buce\b|\bbulk ?(?:mail|message)|as bulk\b|rejected by dcc|quarantined",
    r"suspicious|considered as spam|mcspam",
    r"pourriel|indesirable|unerwunscht|no deseado|indesiderat|ongewenst|垃圾邮件|スパム|迷惑メール",
)

# The email was refused, filtered.
SPAM = words(
    r"(?:content|message|mail|e-?mail|body|subject)(?: \S++){0,4} (?:filter(?:ed)?|denied|blocked|refused"
    r"|prohibited|rejected|rejete|banned|not (?:allowed|accepted))(?! due to (?:temporary|recipient)"
    r"| by (?:destination|recipient))",
    r"(?:rejected|blocked|filtered|refused|denied)(?: \S++){0,3} (?:content|message|body|header|subject|filter"
    r"|by filter)\b",
    r"(?:banned|prohibited|inappropriate|objectionable|blocked|suspicious|sensitive|bad|offensive) (?:content"
    r"|words?|phrase"
    r"|keyword)",
    r"content (?:policy|policies|denied|reject|violat)|mail (?:content )?policy|(?:e-?mail|mail|message) policy viol",
    r"security polic|policy that prohibited|message as spam",
)

# The email was refused without a telling reason.
REFUSED_MESSAGE = words(
    r"\bpolic(?:y|ies)\b",
    r"(?:message|mail|e-?mail)s?(?: \S++){0,5} (?:polic(?:y|ies)|not allowed|not accepted|not welcome"
    r"|\bclient host\b|rejected|refused|blocked|rejete|filtered)",
    r"\bfilter|requested mail action aborted|transaction failed|message (?:refused|rejected)|mail ?policy",
)

# A policy, which is nobody's address.
POLICY = words(r"\bpolic(?:y|ies)\b|(?:not|un)(?: |-)?authori[sz]ed|prohibited|\babuse\b")

# Mailbox full.
FULL = words(
    r"(?:over|exceed\w{0,6}+|extended|out of)[ -]?(?:\S++ ){0,4}(?:quota|storage|disk space|allocation)",
    r"quota (?:exceed|violat|full|has been|limit|depass|superad|excedid|superat|esced|uberschr)",
    r"(?:disk|user|storage|mailbox|mail) quota|overquota",
    r"(?:mailbox|inbox|mail ?box|mail ?folder|account|mailbox for user)(?: \S++){0,3} (?:full|stuffed|over ?quota"
    r"|exceeded|size limit|too large)",
    r"mapiexceptionshutoffquota|storage (?:limit|allocation|space)",
    r"insufficient (?:disk|storage|mailbox) (?:space|storage)|(?:not|n\'t)(?: \S++)? enough (?:storage|space|disk)",
    r"space not enough|storage (?:is )?full|quota is over|over quote\b",
    r"(?:space|storage|quota)(?: \S++){0,3} used up|too many messages (?:on|in) th",
    r"allowed (?:message count|number of messages)|not able to receive any more|(?:mailbox|inbox) (?:size )?limit",
    r"allowed (?:size|storage)",
    r"has too many messages|zuviele mails",
    r"(?:postfach|mailbox|speicher\S{0,12}+)(?: \S++){0,3} (?:voll|uberfullt|erschopft)",
    r"(?:postvak|mailbox)(?: \S++){0,2} (?:vol|overvol)\b|boite(?: \S++){0,4} pleine",
    r"(?:buzon|casilla|bandeja)(?: \S++){0,3} llen[oa]|caixa(?: \S++){0,4} (?:cheia|lotada)",
    r"casella(?: \S++){0,3} piena|przepelnion|skrzynka(?: \S++){0,2} pelna|переполнен|邮箱(?:已满|空间)",
    r"容量(?:超過|オーバー)|いっぱい",
)

# No such user or domain, or disabled.
GONE = words(
    r"(?:user|recipient|mailbox|addr(?:ess(?:ee)?)?|account|alias|customer|subscriber|member|e-?mail|rcpt(?: ?to)?"
    r"|person|inbox|domain|host|destination)s?(?: (?!sender|service|server|client|message"
    r"|connection)\S++){0,6}? \(?(?:(?:is |are |was )?(?:unknown|invalid"
    r"|inactive|disabled|deactivated|suspended|expired|closed|deleted|removed|terminated|discontinued|locked|frozen"
    r"|unavailable|undeliverable|unallocated|unrouteable|misspelled|inexistent)\b|not? (?:\S++ )?(?:found|exist"
    r"|valid|known|recogni[sz]ed|local|available|active|allocated|a (?:known|valid|registered))|does(?:n'?t"
    r"| not) (?:exist|have)|isn't (?:valid|known)|(?:is |been )?blocked due to inact|(?:could not|cannot"
    r"|can't) be found|no longer|marked as invalid|(?:not |un)reachable)",
    r"\b(?:no|bad|not an?|unregistered) (?:such |valid |local |known |active |registered |e-?mail )?(?:users?"
    r"|recipients?|mailbox|addressee?|address|account|alias|customer|inbox|person)\b",
    r"\b(?:unknown|invalid|no such|not a valid|inactive|disabled|non-?existe?nt|unrecogni[sz]ed|illegal|incorrect"
    r"|non-?existant"
    r"|undeliverable|unrouteable|unroutable|dead|obsolete|suspended|expired|blank|banned|nonexisting"
    r"|closed)(?: (?!sender|mail from|from\b|helo)\S++){0,3}?[ /-](?:users?|recipients?|mailbox|mailhost|addressee?"
    r"|(?:e-?mail )?address|account|alias|customer|destination|person|rcpt(?: ?to)?|domain|host|inbox|mail ?drop"
    r"|subscriber)\b",
    r"no correct recipients|not (?:known|recogni[sz]ed) (?:at|here|on this)|not used for mail",
    r"list of allowed recipients",
    r"not a (?:recogni[sz]ed|valid) e-?mail account|(?:couldn't|could not) find (?:a|any) ",
    r"bad destination|not (?:our|a local|my) (?:user|customer|domain|recipient)|no mail ?box",
    r"mailbox (?:is )?(?:disabled|unavailable|busy or|not)|recipnotfound",
    r"user (?:not(?! (?:auth|allowed|permitted|logged|verified|confirmed))|does ?n[o']?t|has moved)",
    r"recipientnotfound|recipient(?:s|_)?not|address_?not_?found|disableduser|nosuchuser|userunknown",
    r"errorinvalidrecipient|rcpt (?:to )?(?:not|reject|fail|invalid)",
    r"(?:does not|doesn't|not|never) (?:accept|accepting|receive|want)(?:s|ing)? (?:any |incoming |e-?)?(?:mail"
    r"|e-?mail"
    r"|network|messages?)(?! (?:\S++ ){0,2}(?:from|with)\b)",
    r"no such (?!command|param|option|file)",
    r"unknown (?:local|id\b|alias|to this|in |here|virtual)|null mx|no valid recipient",
    r"no (?:such )?(?:mx|mail exchanger)|no longer (?:valid|active|in use|on server|available|works?|with"
    r"|accept(?!\w{0,3} (?:\S++ ){0,2}(?:from|with)\b))",
    r"unrouteable|no forwarding|mailbox has moved|forwarding recipient|not in use\b|bad_recipient",
    r"never logged|(?:has|have)(?:n't| not) (?:logged|entered)|(?:cannot|can't|unable to) reach|\bdosn't exist",
    r"(?:smtputf8|internationali[sz]ed)(?: \S++){0,4} (?:required|not|unsupported)",
    r"not in (?:the )?(?:recipient|directory|list|ldap)|(?:recipient|user|mailbox|address) (?:is )?not in\b",
    r"mail (?:to|for) addr (?:is )?not accepted|not (?:being )?accepted (?:at|for) th(?:is|at) (?:address|recipient)",
    r"(?:found|listed) in (?:ldap|public|(?:the )?directory|domino)|not listed|no one with|have an account",
    r"no longer an",
    r"(?:could not|cannot|can\'t|unable to|does not like|not) (?:deliver|like|find|validate)(?: \S++){0,4} (?:user"
    r"|recipient|alias|for)\b",
    r"handle mail for that|(?:any )?host (?:named|by that name)|no route found|incorrectly addressed|not unique",
    r"mail-?box here|mailbox name not allowed|deactivated|not activated|wrong recipient|not currently being accepted",
    r"verify (?:that )?you have the correct|check(?:ing)? the (?:recipient'?s'? )?(?:e-?mail )?address",
    r"(?:empfanger|benutzer|postfach|adresse|konto|teilnehmer)\S{0,8}(?: \S++){0,4} (?:unbekannt|existiert nicht"
    r"|nicht (?:gefunden|vorhanden|bekannt|erreichbar)|ungultig|deaktiviert|gesperrt|geloscht)",
    r"unbekannte\w? (?:benutzer|empfanger|adresse)|kein (?:solcher|gultiger) (?:benutzer|empfanger)",
    r"(?:utilisateur|destinataire|adresse|boite|compte|abonne)s?(?: \S++){0,5} (?:inconnue?|inexistante?|n'existe"
    r"|invalide|introuvable|bloquee?|desactivee?|suspendue?|inactive?|archivee?|fermee?|n'est pas)",
    r"(?:usuario|destinatario|buzon|cuenta|direccion|casilla)(?: \S++){0,5} (?:desconocid|no existe"
    r"|no (?:se )?encontr|inexistente|deshabilitad|invalid|inactiv|no valid|suspendid)",
    r"(?:utente|destinatario|casella|indirizzo|account)(?: \S++){0,5} (?:sconosciut|inesistente|non (?:esiste"
    r"|trovat|valid|attiv)|disabilitat|sospes)",
    r"(?:usuario|destinatario|caixa|conta|endereco)(?: \S++){0,5} (?:desconhecid|nao (?:existe|encontrad)"
    r"|inexistente|inativ|desativad|invalid)",
    r"(?:gebruiker|ontvanger|postvak|mailbox|adres)(?: \S++){0,4} (?:onbekend|bestaat niet|niet (?:gevonden|bekend)"
    r"|ongeldig)",
    r"onbekende (?:gebruiker|ontvanger)|用户不存在|邮箱不存在|地址不存在|无此用户|收件人(?:不存在|地址|无效)",
    r"ユーザ.{0,6}(?:不明|存在し)|宛先.{0,10}(?:不明|存在し|見つかり)|sconosciut|inesistente|ha expirado",
    r"(?:errato|erroneo)\b|nie istnieje|nie ma takiego|nieznany (?:uzytkownik|odbiorca|adres)|zablokowane|adressat",
    r"не (?:существует|найден)|нет такого|неизвестн",
)

# A person or a mailbox, named next to what is wrong with it.
NAMES_RECIPIENT = words(
    r"\b(?:users?|recipients?|mail ?box(?:es)?|addressee|alias|inbox|subscriber|customer|account"
    r"|rcpt)(?: addr)?(?: \S++){0,2}"
    r"[ :](?:unknown|invalid|inactive|deactivated|not? (?:\S++ )?(?:found|exist|valid|known|recogni[sz]ed|local"
    r"|active)"
    r"|does(?:n'?t| not) (?:exist|have)|no longer|undeliverable|misspelled|has moved|is full|full\b"
    r"|over ?quota)",
    r"\b(?:unknown|invalid|no such|no|non-?existe?nt|inactive|not a (?:valid|known)|unrecogni[sz]ed|illegal"
    r"|bad destination)"
    r" (?:local |virtual |valid |mail |e-?mail )?(?:users?|recipients?|mail ?box|mailhost|addressee|alias|inbox"
    r"|subscriber|customer)\b",
    r"(?:user|recipient|mailbox|recipient account) (?:is |has been )?(?:disabled|suspended|closed|expired|locked"
    r"|blocked|over its quota)|usersearch|nosuchuser",
    r"not (?:our|a local|my) (?:user|customer|recipient)|mailbox (?:full|not)|null mx|takes no mail",
    r"email account that you tried to reach|no such (?:domain|host)(?! in)",
    r"(?:host|domain) (?:name )?(?:not found|unknown)|unknown host",
)

# The recipient was refused without a telling reason.
RECIPIENT_REFUSED = words(
    r"(?:recipient|mailbox|user|account|addressee|destinataire|destinatario|empfanger"
    r"|rcpt)s?(?: \S++){0,5} (?:reject|refus|restrict|ban|fail|block|(?:access )?denied|bloqu|gesperrt|unrecogni"
    r"|not (?:allowed|permitted|ok\b|accepted)|cannot be verified)",
    r"target address|\baddress(?:\(?es\)?)? (?:is |was )?(?:reject|refus|fail|not allowed|denied)",
    r"fail(?:ed|ure)? for (?:one or more )?recipient",
)

# Postfix says this of every restriction at RCPT, whomever it is about: what follows is the reason.
ANY_RESTRICTION = words(r"recipient address rejected: (?!access denied|blocked)(?=\S)")

# The recipient takes mail from inside only.
INSIDERS_ONLY = words(
    r"resolver\.rst\.(?:auth|notauth|restrict|sendernotauth)",
    r"sender (?:was |is )?not authenticated (?:by|for) (?:organization|group|mailbox|public)|not in allowed-senders",
    r"allowed[- ]senders list|only accepts? (?:mail|messages) from (?:people|members|internal)",
)

# Never again, by the recipient or by the provider's list.
SUPPRESSED = words(
    r"suppress(?:ed|ion)(?! by)|unsubscrib|(?:user|recipient|person|who) (?:has |had )?(?:marked"
    r"|reported) .{0,40}\bas spam|(?:previously|hard) bounced|bounced address",
    r"address (?:has|had) bounced|spam report(?:ing|ed) address|to (?:a )?(?:complainer|complained)",
    r"blacklist(?:ed)? (?:user|recipient)|(?<!ip )(?<!your )address (?:is )?(?:black|block|deny) ?listed",
    r"blocked senders|envelope blocked - user|user(?:'s)? (?:block|deny) ?list",
    r"(?:rejected|refused|blocked) by (?:this |the )?(?:user|recipient|addressee)s?\b(?!'s|s?' | (?:domain|server"
    r"|system|filter|mail|organi))",
    r"recipient(?:'s)? preferences?",
    r"(?:recipient|user) (?:has )?(?:blocked|refused) (?:you|mail|this|the sender|sender|to (?:receive|accept))",
    r"\bblocked you\b|blocked by the recipient(?! (?:domain|server|org))",
)
