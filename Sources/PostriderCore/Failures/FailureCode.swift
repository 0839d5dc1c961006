/// Every failure Postrider knows, with what to do next, who is hit and what a person can do.
///
/// The raw value is stable: it stands in alerts, runs, the API and the documentation. A new server answer is a new row
/// here and a new test, not an `if` elsewhere.
public enum FailureCode: String, Hashable, Sendable, Codable, CaseIterable {
  /// The name server did not answer.
  case dnsTemporary = "dns.temporary"
  /// The host name does not exist.
  case dnsUnknownHost = "dns.unknown-host"
  /// The egress policy does not allow this address or port.
  case egressDenied = "egress.denied"
  /// The server refused the connection.
  case tcpRefused = "tcp.refused"
  /// The server did not answer in time.
  case tcpTimeout = "tcp.timeout"
  /// The server cannot be reached over the network.
  case tcpUnreachable = "tcp.unreachable"
  /// The server closed the connection in the middle of the session.
  case tcpClosed = "tcp.closed"
  /// The server sent data slower than the minimum rate.
  case tcpTooSlow = "tcp.too-slow"
  /// The TLS handshake failed.
  case tlsHandshake = "tls.handshake"
  /// The port speaks TLS where plain text was expected, or the reverse.
  case tlsPortMismatch = "tls.port-mismatch"
  /// The server's certificate is signed by an authority that is not trusted.
  case tlsUntrusted = "tls.untrusted"
  /// The server's certificate is for another host name.
  case tlsNameMismatch = "tls.name-mismatch"
  /// The server's certificate has expired or is not valid yet.
  case tlsExpired = "tls.expired"
  /// The server offers no TLS version that is still safe (1.2 or newer).
  case tlsVersion = "tls.version"
  /// STARTTLS is required, but the server does not offer or refused it.
  case tlsStartTLSMissing = "tls.starttls-missing"
  /// Bytes were smuggled in before the TLS handshake.
  case tlsStartTLSInjection = "tls.starttls-injection"
  /// The POP3 server did not greet, or refused to.
  case pop3Greeting = "pop3.greeting"
  /// The server reports a temporary problem with this mailbox.
  case pop3SysTemp = "pop3.sys-temp"
  /// The server reports a permanent problem with this mailbox, or POP is not enabled for it.
  case pop3SysPerm = "pop3.sys-perm"
  /// Another session has the mailbox open.
  case pop3InUse = "pop3.in-use"
  /// The server wants more time between logins.
  case pop3LoginDelay = "pop3.login-delay"
  /// The provider's allowance for downloads is used up.
  case pop3Quota = "pop3.quota"
  /// The server refused the user name or password.
  case authRejected = "auth.rejected"
  /// The server refused the login without saying why.
  case authRejectedUnspecified = "auth.rejected-unspecified"
  /// The server offers no login method that this profile may use.
  case authNoMechanism = "auth.no-mechanism"
  /// The server wants authentication first.
  case authRequired = "auth.required"
  /// The server wants a stronger login method.
  case authWeak = "auth.weak"
  /// The server limits login attempts.
  case authThrottled = "auth.throttled"
  /// Postrider itself limits login attempts, so that the server does not ban it.
  case authBudget = "auth.budget"
  /// The server refuses many mailboxes that it let in before: the provider is at fault, and none of them.
  case authMassRejection = "auth.mass-rejection"
  /// The provider's policy forbids this kind of login.
  case authTenantPolicy = "auth.tenant-policy"
  /// The server wants the password to be changed or entered once by hand.
  case authPasswordTransition = "auth.password-transition"
  /// The server did not prove that it knows the password.
  case authServerUnproven = "auth.server-unproven"
  /// The worker got no Kerberos ticket for this server.
  case authKerberos = "auth.kerberos"
  /// The token lacks the right to this protocol.
  case oauthScope = "oauth.scope"
  /// The token server says that the grant is over.
  case oauthGrantExpired = "oauth.grant-expired"
  /// The owner consented to another application than the profile's present one.
  case oauthReplaced = "oauth.application-replaced"
  /// The token server refuses the application.
  case oauthClient = "oauth.client"
  /// The token server says of many mailboxes at once that their grants are over: the provider is at fault, and none of
  /// them.
  case oauthMassRejection = "oauth.mass-rejection"
  /// The token server did not answer as it should.
  case oauthTemporary = "oauth.temporary"
  /// The owner of the mailbox has not consented.
  case oauthNotConnected = "oauth.not-connected"
  /// The profile has no OAuth application.
  case oauthNotConfigured = "oauth.not-configured"
  /// No password is stored for this login.
  case credentialsMissing = "credentials.missing"
  /// The stored password cannot be decrypted with the present keys.
  case credentialsUnreadable = "credentials.unreadable"
  /// The mailbox's user name would be read as another one.
  case credentialsAmbiguous = "credentials.ambiguous"
  /// This worker cannot use the profile's way of authentication.
  case profileNotSupported = "profile.not-supported"
  /// One account would open the same maildrop for several mailboxes.
  case profileNoDelegation = "profile.no-delegation"
  /// Another organization of this installation receives the address's mail.
  case ownershipOtherOrganization = "ownership.other-organization"
  /// Another organization of this installation has taken the address over.
  case ownershipTakenOver = "ownership.taken-over"
  /// The server has no unique ids (UIDL), so mail cannot be kept on it.
  case pop3NoUIDL = "pop3.no-uidl"
  /// The server did not hand out this message.
  case pop3Retrieve = "pop3.retr"
  /// The server refused a command that it should know.
  case pop3Rejected = "pop3.rejected"
  /// The server renumbered the whole mailbox.
  case pop3UIDLReset = "pop3.uidl-reset"
  /// The server sent more than the protocol allows.
  case protocolLimit = "protocol.limit"
  /// The server's answer is not of this protocol.
  case protocolSyntax = "protocol.syntax"
  /// The message cannot be parsed.
  case messageUnparsable = "message.unparsable"
  /// The message is larger than allowed.
  case messageTooLarge = "message.too-large"
  /// The message cannot be stored.
  case messageStore = "message.store"
  /// The SMTP server did not greet, or refused to.
  case smtpGreeting = "smtp.greeting"
  /// The server is busy.
  case smtpBusy = "smtp.busy"
  /// Too many recipients for one message.
  case smtpTooManyRecipients = "smtp.too-many-recipients"
  /// The server is out of storage.
  case smtpStorage = "smtp.storage"
  /// The recipient's mailbox is full.
  case smtpRecipientFull = "smtp.recipient-full"
  /// The server limits simultaneous sessions of this mailbox.
  case smtpConcurrency = "smtp.concurrency"
  /// The provider's sending allowance is used up.
  case smtpQuota = "smtp.quota"
  /// This login may not send from that address.
  case smtpSendAsDenied = "smtp.send-as-denied"
  /// The provider blocked this sender.
  case smtpSenderBlocked = "smtp.sender-blocked"
  /// The recipient was refused.
  case smtpRecipient = "smtp.recipient"
  /// The message is too large for the server.
  case smtpTooLarge = "smtp.too-large"
  /// The sender's mailbox is full.
  case smtpSenderFull = "smtp.sender-full"
  /// The server refused the content.
  case smtpContent = "smtp.content"
  /// The server refused the message.
  case smtpRejected = "smtp.rejected"
  /// The connection was lost before the message was handed over.
  case smtpLost = "smtp.lost"
  /// The connection was lost after the message, before the answer.
  case smtpUncertain = "smtp.uncertain"
  /// Many answers went from the mailbox to one address within an hour: held back, so that two programs do not talk for ever.
  case sendLoop = "send.loop"
  /// A program's answer to a message that a program wrote: held back (RFC 3834).
  case sendAutomaticAnswer = "send.automatic-answer"
  /// The session was interrupted because the worker stopped or lost its lease.
  case runAborted = "run.aborted"
  /// The session took longer than allowed.
  case sessionDeadline = "session.deadline"
  /// Postrider met an error of its own.
  case internalError = "internal"

  /// The class of this code where nothing else is known.
  public var defaultClass: FailureClass { row.failureClass }
  /// The scope of this code where nothing else is known.
  public var defaultScope: FailureScope { row.scope }
  /// Whether the server did not speak the protocol.
  public var isBrokenProtocol: Bool { self == .protocolLimit || self == .protocolSyntax }
  /// Whether a refusal needs no confirming retry: a right is missing, or the application is another, until a person
  /// consents again.
  public var isFinalRefusal: Bool { self == .oauthScope || self == .oauthReplaced }
  /// One sentence for people.
  public var summary: String { row.summary }
  /// What a person can do about it.
  public var remedy: String { row.remedy }

  private struct Row {
    let failureClass: FailureClass
    let scope: FailureScope
    let summary: String
    let remedy: String

    init(_ failureClass: FailureClass, _ scope: FailureScope, _ summary: String, _ remedy: String) {
      self.failureClass = failureClass
      self.scope = scope
      self.summary = summary
      self.remedy = remedy
    }
  }

  private var row: Row {
    switch self {
    case .dnsTemporary:
      Row(
        .transient, .server, "The name server did not answer.",
        "Check the resolver of the workers; Postrider tries again by itself.")
    case .dnsUnknownHost:
      Row(
        .permanent, .profile, "The host name does not exist.",
        "Correct the location (host name) in the server profile.")
    case .egressDenied:
      Row(
        .permanent, .profile, "The egress policy does not allow this address or port.",
        "Use a public mail server and an allowed port, or let the operator allow the address with "
          + "POSTRIDER_EGRESS_ALLOW and the port with POSTRIDER_EGRESS_PORTS.")
    case .tcpRefused:
      Row(
        .transient, .server, "The server refused the connection.",
        "Check host and port in the profile and that the mail server runs; Postrider tries again by itself.")
    case .tcpTimeout:
      Row(
        .transient, .server, "The server did not answer in time.",
        "Check host, port and firewalls, or raise the connection timeout; Postrider tries again by itself.")
    case .tcpUnreachable:
      Row(
        .transient, .server, "The server cannot be reached over the network.",
        "Check the network of the workers; Postrider tries again by itself.")
    case .tcpClosed:
      Row(
        .transient, .server, "The server closed the connection in the middle of the session.",
        "Nothing, if it happens now and then; otherwise look at the mail server's log.")
    case .tcpTooSlow:
      Row(
        .transient, .server, "The server sent data slower than the minimum rate.",
        "Look at the network and the load of the mail server.")
    case .tlsHandshake:
      Row(
        .transient, .server, "The TLS handshake failed.",
        "Check that the server offers TLS 1.2 or newer with a common cipher.")
    case .tlsPortMismatch:
      Row(
        .permanent, .profile, "The port speaks TLS where plain text was expected, or the reverse.",
        "Use implicit TLS with port 995 (POP3) or 465 (SMTP), STARTTLS with port 110 or 587.")
    case .tlsUntrusted:
      Row(
        .permanent, .profile, "The server's certificate is signed by an authority that is not trusted.",
        "Add the authority's certificate (PEM) to the server profile.")
    case .tlsNameMismatch:
      Row(
        .permanent, .profile, "The server's certificate is for another host name.",
        "Use the host name that stands in the certificate.")
    case .tlsExpired:
      Row(
        .permanent, .profile, "The server's certificate has expired or is not valid yet.",
        "Let the mail server's administrator renew the certificate, and check the workers' clock.")
    case .tlsVersion:
      Row(
        .permanent, .profile, "The server offers no TLS version that is still safe (1.2 or newer).",
        "Let the mail server's administrator enable TLS 1.2 or 1.3.")
    case .tlsStartTLSMissing:
      Row(
        .attack, .profile, "STARTTLS is required, but the server does not offer or refused it.",
        "Somebody may be removing it on the way. Use implicit TLS, or check the mail server.")
    case .tlsStartTLSInjection:
      Row(
        .attack, .profile, "Bytes were smuggled in before the TLS handshake.",
        "Somebody interferes with the connection, or the server is broken. Use implicit TLS.")
    case .pop3Greeting:
      Row(
        .transient, .server, "The POP3 server did not greet, or refused to.",
        "Check that this port is a POP3 server; Postrider tries again by itself.")
    case .pop3SysTemp:
      Row(
        .transient, .mailbox, "The server reports a temporary problem with this mailbox.",
        "Postrider tries again by itself.")
    case .pop3SysPerm:
      Row(
        .permanent, .mailbox, "The server reports a permanent problem with this mailbox, or POP is not enabled for it.",
        "Enable POP access for this account at the provider, then test & enable again.")
    case .pop3InUse:
      Row(
        .contention, .mailbox, "Another session has the mailbox open.",
        "Close other POP3 clients of this account; Postrider tries again shortly.")
    case .pop3LoginDelay:
      Row(
        .throttle, .mailbox, "The server wants more time between logins.",
        "Raise the polling interval of the profile.")
    case .pop3Quota:
      Row(
        .quota, .mailbox, "The provider's allowance for downloads is used up.",
        "Nothing: the rest comes when the provider allows more, within a day. Close other programs that fetch this mailbox."
      )
    case .authRejected:
      Row(
        .credential, .mailbox, "The server refused the user name or password.",
        "Enter the right credentials; some providers need an app password or OAuth.")
    case .authRejectedUnspecified:
      Row(
        .credential, .mailbox, "The server refused the login without saying why.",
        "Check user name and password, and that the account may use POP3 or SMTP.")
    case .authNoMechanism:
      Row(
        .permanent, .profile, "The server offers no login method that this profile may use.",
        "Choose another authentication protocol, or use TLS so that passwords may be sent.")
    case .authRequired:
      Row(
        .credential, .mailbox, "The server wants authentication first.",
        "Set the credentials of the outgoing server.")
    case .authWeak:
      Row(
        .credential, .mailbox, "The server wants a stronger login method.",
        "Choose a stronger authentication protocol or use TLS.")
    case .authThrottled:
      Row(
        .throttle, .mailbox, "The server limits login attempts.",
        "Postrider waits and tries again by itself.")
    case .authBudget:
      Row(
        .throttle, .mailbox, "Too many logins failed at this server; Postrider waits so that it is not banned.",
        "Correct the mailboxes whose credentials are refused; Postrider tries again by itself.")
    case .authMassRejection:
      Row(
        .credential, .profile, "The server refuses many mailboxes that it let in before.",
        "No mailbox is disabled. One session tries again every few minutes and lets all go on when it gets in; if it "
          + "lasts, ask the provider whether logins were blocked or passwords were reset.")
    case .authTenantPolicy:
      Row(
        .permanent, .mailbox, "The provider's policy forbids this kind of login.",
        "Let the provider's administrator allow SMTP authentication, or use OAuth.")
    case .authPasswordTransition:
      Row(
        .credential, .mailbox, "The server wants the password to be changed or entered once by hand.",
        "Sign in at the provider once, then test & enable again.")
    case .authServerUnproven:
      Row(
        .attack, .profile, "The server did not prove that it knows the password.",
        "Somebody may stand between, or the server's SCRAM is broken. Check the mail server; a server that cannot do "
          + "better needs another authentication protocol in the profile.")
    case .authKerberos:
      Row(
        .transient, .profile, "The worker got no Kerberos ticket for this server.",
        "Give the workers a keytab (KRB5_CLIENT_KTNAME) or a ticket (KRB5CCNAME), and check krb5.conf and the KDC.")
    case .oauthScope:
      Row(
        .credential, .mailbox, "The token lacks the right to this protocol.",
        "Let the owner consent again and grant every right that is asked for.")
    case .oauthGrantExpired:
      Row(
        .credential, .mailbox, "The provider no longer accepts the consent for this mailbox.",
        "Let the owner consent again: `postrider mailbox connect`. Then test & enable.")
    case .oauthReplaced:
      Row(
        .credential, .mailbox, "The owner consented to another OAuth application than the profile has now.",
        "Let the owner consent again: `postrider mailbox connect`. The old consent is not shown to the new application's "
          + "server. Then test & enable.")
    case .oauthClient:
      Row(
        .permanent, .profile, "The provider refuses the application's client id, secret or key.",
        "Renew the secret at the provider and set it with `postrider profile oauth set`; no mailbox is disabled.")
    case .oauthMassRejection:
      Row(
        .transient, .profile, "The provider says of many mailboxes at once that their consents are over.",
        "No mailbox is disabled; Postrider tries again by itself. If it lasts, ask the provider whether the application "
          + "was blocked or its consents were ended; a mailbox whose owner consents again goes on at once.")
    case .oauthTemporary:
      Row(
        .transient, .profile, "The provider's token server cannot be reached or is busy.",
        "Postrider tries again by itself; tokens that are still good are used meanwhile.")
    case .oauthNotConnected:
      Row(
        .permanent, .mailbox, "The owner of this mailbox has not consented yet.",
        "Let the owner consent: `postrider mailbox connect`.")
    case .oauthNotConfigured:
      Row(
        .permanent, .profile, "The profile uses OAuth and has no application for it.",
        "Register an application at the provider and set it with `postrider profile oauth set`.")
    case .credentialsMissing:
      Row(
        .permanent, .mailbox, "No password is stored for this login.",
        "Enter user name and password on the mailbox (or the profile) and allow their use.")
    case .credentialsUnreadable:
      Row(
        .permanent, .profile, "The stored password cannot be decrypted with the present keys.",
        "Give the workers the key ring that encrypted it; `POSTRIDER_KEYS_FILE`.")
    case .credentialsAmbiguous:
      Row(
        .permanent, .mailbox, "The mailbox's user name would be read as another one in the profile's login name.",
        "Change the user name, or the template in the profile's `loginAs`: neither name may hold what stands between them."
      )
    case .profileNotSupported:
      Row(
        .permanent, .profile, "This worker cannot use the profile's way of authentication.",
        "Choose another way to authenticate in the server profile.")
    case .profileNoDelegation:
      Row(
        .permanent, .profile, "The profile's account would open the same maildrop for several mailboxes.",
        "Give the profile `loginAs` (`authzid`, or a template such as {mailbox}*{user}), or each mailbox credentials of "
          + "its own.")
    case .ownershipOtherOrganization:
      Row(
        .permanent, .mailbox, "Another organization of this installation synchronizes this address already.",
        "Let that organization give the address up, or take it over: test & enable with `postrider mailbox test "
          + "--take-over`, which stops it there. Sending goes on.")
    case .ownershipTakenOver:
      Row(
        .permanent, .mailbox, "Another organization of this installation has taken the address over.",
        "Ask whoever runs the installation if that was not agreed. To take it back, test & enable with `postrider mailbox "
          + "test --take-over`. Sending goes on.")
    case .pop3NoUIDL:
      Row(
        .permanent, .mailbox, "The server has no unique ids (UIDL), so mail cannot be kept on it.",
        "Use another server: by these ids Postrider knows what it has received already.")
    case .pop3Retrieve:
      Row(
        .message, .message, "The server did not hand out this message.",
        "Postrider tries it again at the next polls.")
    case .pop3Rejected:
      Row(
        .transient, .mailbox, "The server refused a command that it should know.",
        "Look at the run's steps; Postrider tries again by itself.")
    case .pop3UIDLReset:
      Row(
        .permanent, .mailbox, "The server renumbered the whole mailbox.",
        "Choose with `postrider mailbox reimport`: only what is not stored yet, or everything again.")
    case .protocolLimit:
      Row(
        .transient, .mailbox, "The server sent more than the protocol allows.",
        "Check that host and port are a mail server of this protocol.")
    case .protocolSyntax:
      Row(
        .transient, .mailbox, "The server's answer is not of this protocol.",
        "Check that host and port are a mail server of this protocol.")
    case .messageUnparsable:
      Row(
        .message, .message, "The message cannot be parsed.",
        "It stays on the server and is kept in quarantine.")
    case .messageTooLarge:
      Row(
        .message, .message, "The message is larger than allowed.",
        "Raise the organization's maximum message size.")
    case .messageStore:
      Row(
        .message, .message, "The message cannot be stored.",
        "Look at the workers' log; the message stays on the server.")
    case .smtpGreeting:
      Row(
        .transient, .server, "The SMTP server did not greet, or refused to.",
        "Check that this port is an SMTP server; Postrider tries again by itself.")
    case .smtpBusy:
      Row(
        .transient, .message, "The server is busy.",
        "Postrider tries again by itself.")
    case .smtpTooManyRecipients:
      Row(
        .transient, .message, "Too many recipients for one message.",
        "Postrider splits the message.")
    case .smtpStorage:
      Row(
        .transient, .message, "The server is out of storage.",
        "Postrider tries again by itself for two days.")
    case .smtpRecipientFull:
      Row(
        .transient, .message, "The recipient's mailbox is full.",
        "Postrider tries again by itself for two days.")
    case .smtpConcurrency:
      Row(
        .throttle, .mailbox, "The server limits simultaneous sessions of this mailbox.",
        "Lower the maximum of concurrent connections.")
    case .smtpQuota:
      Row(
        .quota, .mailbox, "The provider's sending allowance is used up.",
        "Postrider continues when it is renewed.")
    case .smtpSendAsDenied:
      Row(
        .permanent, .message, "This login may not send from that address.",
        "Give the account the right to send as the mailbox's address.")
    case .smtpSenderBlocked:
      Row(
        .permanent, .mailbox, "The provider blocked this sender.",
        "Contact the provider.")
    case .smtpRecipient:
      Row(
        .recipient, .message, "The recipient was refused.",
        "Correct the address.")
    case .smtpTooLarge:
      Row(
        .permanent, .message, "The message is too large for the server.",
        "Send a smaller message.")
    case .smtpSenderFull:
      Row(
        .quota, .mailbox, "The sender's mailbox is full.",
        "Free space in the sender's mailbox.")
    case .smtpContent:
      Row(
        .permanent, .message, "The server refused the content.",
        "Look at the server's words.")
    case .smtpRejected:
      Row(
        .permanent, .message, "The server refused the message.",
        "Look at the server's words.")
    case .smtpLost:
      Row(
        .transient, .message, "The connection was lost before the message was handed over.",
        "Postrider tries again by itself.")
    case .smtpUncertain:
      Row(
        .uncertain, .message, "The connection was lost after the message, before the answer.",
        "Look whether it arrived, then resend or discard it.")
    case .sendLoop:
      Row(
        .permanent, .message, "Many answers went to this address within an hour; this one is kept as a draft.",
        "Look whether a program answers there. Send it with `postrider email outgoing retry` if it is meant; allow more "
          + "with `postrider mailbox quota --answers-per-hour`.")
    case .sendAutomaticAnswer:
      Row(
        .permanent, .message, "An automatic answer to an automatic message is kept as a draft.",
        "Let the program not answer mail that is marked automatic or a bounce (RFC 3834). Send it with `postrider email "
          + "outgoing retry` if it is meant.")
    case .runAborted:
      Row(
        .transient, .mailbox, "The session was interrupted because the worker stopped or lost its lease.",
        "Nothing; the work is done again.")
    case .sessionDeadline:
      Row(
        .transient, .server, "The session took longer than allowed.",
        "Look at the run's steps for the slow one.")
    case .internalError:
      Row(
        .transient, .mailbox, "Postrider met an error of its own.",
        "Look at the workers' log and report it.")
    }
  }
}
