import PostriderCore
import Testing

@testable import MailProtocols

@Suite("Sorting of POP3 answers")
struct POP3SortingTests {
  @Test(
    "each row of the table",
    arguments: [
      ("server too busy", POP3Stage.greeting, FailureCode.pop3Greeting),
      ("[SYS/TEMP] later", .greeting, .pop3Greeting),
      ("unknown command", .startTLS, .tlsStartTLSMissing),
      ("[SYS/TEMP] Temporary authentication failure.", .authentication, .pop3SysTemp),
      ("[SYS/NEW] something", .authentication, .pop3SysTemp),
      ("[SYS/PERM] Your account is not enabled for POP access.", .authentication, .pop3SysPerm),
      ("Your account is not enabled for POP access", .authentication, .pop3SysPerm),
      ("[IN-USE] Do you have another POP session running?", .authentication, .pop3InUse),
      ("[in-use] x", .authentication, .pop3InUse),
      ("maildrop already locked", .authentication, .pop3InUse),
      ("mailbox is already in use", .authentication, .pop3InUse),
      ("account locked, call support", .authentication, .authRejectedUnspecified),
      ("[LOGIN-DELAY] minimum time between logins", .authentication, .pop3LoginDelay),
      ("[AUTH] Authentication failed.", .authentication, .authRejected),
      ("[AUTH] Username and password not accepted.", .authentication, .authRejected),
      ("Username and password not accepted.", .authentication, .authRejected),
      ("Application-specific password required: https://x", .authentication, .authRejected),
      ("Web login required: https://x", .authentication, .authRejected),
      ("invalid", .authentication, .authRejectedUnspecified),
      ("[X-OTHER] invalid", .authentication, .authRejectedUnspecified),
      ("unimplemented", .unique, .pop3NoUIDL),
      ("no such message", .retrieve, .pop3Retrieve),
      ("no such message", .top, .pop3Retrieve),
      ("[SYS/TEMP] internal error", .retrieve, .pop3SysTemp),
      ("Account exceeded command or bandwidth limits", .authentication, .pop3Quota),
      ("access blocked due to excessive usage", .authentication, .pop3Quota),
      ("what?", .delete, .pop3Rejected), ("some left", .quit, .pop3Rejected),
    ])
  func rows(text: String, stage: POP3Stage, code: FailureCode) {
    let failure = AnswerSorting.failure(POP3Error(text), at: stage, words: "-ERR " + text)
    #expect(failure.code == code)
    #expect(failure.failureClass == code.defaultClass)
    #expect(failure.serverWords == "-ERR " + text)
  }

  @Test("the login delay that the server announced comes along")
  func delay() {
    let failure = AnswerSorting.failure(
      POP3Error("[LOGIN-DELAY] x"), at: .authentication, words: "", loginDelay: 900)
    #expect(failure.retryAfterSeconds == 900)
  }

  @Test(
    "how long the server asks to wait, in its own words",
    arguments: [
      ("[LOGIN-DELAY] Logins must be at least 5 minutes apart", 300), ("[IN-USE] locked, try again in 90 seconds", 90),
      ("[SYS/TEMP] busy; wait 2 hours.", 7_200), ("[SYS/TEMP] retry in 30 sec", 30), ("[IN-USE] after 10 mins", 600),
      ("[IN-USE] 2 sessions", nil), ("[SYS/TEMP] wait 99999999999999999999 seconds", nil),
      ("[SYS/TEMP] wait 9223372036854775807 hours", nil), ("[SYS/TEMP] wait 900 hours", nil),
      ("[AUTH] password expires in 5 minutes", nil),
    ] as [(String, Int?)])
  func hint(text: String, seconds: Int?) {
    let failure = AnswerSorting.failure(POP3Error(text), at: .authentication, words: "")
    #expect(failure.retryAfterSeconds == seconds)
  }
}

@Suite("Sorting of SMTP replies")
struct SMTPSortingTests {
  @Test(
    "each row of the table",
    arguments: [
      (421, "4.7.0 closing", SMTPStage.mail, FailureCode.smtpBusy), (450, "4.2.0 greylisted", .recipient, .smtpBusy),
      (451, "4.3.0 error", .message, .smtpBusy), (452, "4.5.3 too many", .recipient, .smtpTooManyRecipients),
      (452, "4.5.3 daily limit reached", .recipient, .smtpQuota), (452, "4.3.1 full", .mail, .smtpStorage),
      (452, "4.2.2 full", .recipient, .smtpRecipientFull), (432, "4.3.2 too many", .mail, .smtpConcurrency),
      (432, "4.3.2 STOREDRV; thread limit exceeded", .message, .smtpConcurrency),
      (432, "4.7.12 password transition", .authentication, .authPasswordTransition),
      (432, "needed", .authentication, .authPasswordTransition),
      (454, "4.7.0 try later", .authentication, .authThrottled),
      (421, "4.7.0 Too many login attempts", .authentication, .authThrottled),
      (535, "5.7.8 bad", .authentication, .authRejected), (535, "5.7.3 unsuccessful", .authentication, .authRejected),
      (534, "5.7.9 too weak", .authentication, .authWeak),
      (534, "5.7.9 Application-specific password required", .authentication, .authRejected),
      (530, "5.7.0 required", .mail, .authRequired), (538, "5.7.11 encryption required", .authentication, .authWeak),
      (535, "5.7.139 basic is disabled", .authentication, .authTenantPolicy),
      (550, "5.7.30 basic is not supported", .message, .authTenantPolicy),
      (535, "5.7.3 SmtpClientAuthentication is disabled for the Tenant", .authentication, .authTenantPolicy),
      (504, "unknown mechanism", .authentication, .authNoMechanism), (550, "5.4.5 daily", .message, .smtpQuota),
      (554, "5.2.0 SubmissionQuotaExceeded", .message, .smtpQuota), (554, "5.2.0 other", .message, .smtpRejected),
      (550, "5.7.60 SendAsDenied", .message, .smtpSendAsDenied), (550, "5.7.1 denied", .mail, .smtpSendAsDenied),
      (550, "5.7.1 denied", .message, .smtpRejected), (550, "5.1.8 bad", .message, .smtpSenderBlocked),
      (550, "5.7.708 no", .message, .smtpSenderBlocked), (550, "5.1.1 unknown", .recipient, .smtpRecipient),
      (551, "not local", .recipient, .smtpRecipient), (553, "bad", .recipient, .smtpRecipient),
      (553, "5.7.1 <a@b>: Sender address rejected: not owned by user c", .recipient, .smtpSendAsDenied),
      (556, "5.1.10 null MX", .recipient, .smtpRecipient), (552, "5.3.4 too big", .mail, .smtpTooLarge),
      (552, "5.2.3 too big", .message, .smtpTooLarge), (552, "too big", .message, .smtpTooLarge),
      (554, "5.2.2 sender full", .message, .smtpSenderFull), (554, "5.6.0 bad", .message, .smtpContent),
      (554, "5.7.1 spam", .message, .smtpRejected), (554, "no", .greeting, .smtpGreeting),
      (450, "later", .greeting, .smtpBusy), (454, "TLS not available", .startTLS, .tlsStartTLSMissing),
      (250, "fine", .data, .protocolSyntax), (550, "4.6.1 contradiction", .message, .smtpRejected),
    ])
  func rows(code: Int, text: String, stage: SMTPStage, expected: FailureCode) {
    let reply = SMTPReply(code: code, lines: [text])
    let failure = AnswerSorting.failure(reply, at: stage, words: reply.words)
    #expect(failure.code == expected)
    #expect(failure.failureClass == expected.defaultClass)
  }

  @Test("421 and a refused greeting are the server's, not the message's")
  func scopes() {
    let reply = SMTPReply(code: 421, lines: ["busy"])
    #expect(AnswerSorting.failure(reply, at: .message, words: "").scope == .server)
    let later = SMTPReply(code: 451, lines: ["busy"])
    #expect(AnswerSorting.failure(later, at: .greeting, words: "").scope == .server)
    #expect(AnswerSorting.failure(later, at: .message, words: "").scope == .message)
  }
}

@Suite("Redaction")
struct RedactionTests {
  @Test(
    "an echoed secret does not survive",
    arguments: [
      "-ERR unknown command PASS correct horse", "-ERR CORRECT HORSE is wrong", "-ERR got Y29ycmVjdCBob3JzZQ==",
      "-ERR AUTH PLAIN AGFubmEAY29ycmVjdCBob3JzZQ== failed", "-ERR bad: auth plain something else", "correct horse",
    ])
  func echoes(words: String) {
    var redactor = Redactor()
    redactor.hide(anna)
    let clean = redactor.clean(words, atLogin: true).lowercased()
    #expect(clean.contains(Redactor.mark))
    for secret in ["correct horse", "y29ycmvjd", "agfubme", "something else"] { #expect(!clean.contains(secret)) }
  }

  @Test("other words stay")
  func others() {
    var redactor = Redactor()
    redactor.hide(anna)
    #expect(redactor.clean("-ERR [AUTH] no such user anna", atLogin: true) == "-ERR [AUTH] no such user anna")
  }
}
