import PostriderCore

/// What an SMTP session was doing when the server said no.
enum SMTPStage: String, Hashable, Sendable, CaseIterable {
  case greeting
  case hello = "EHLO"
  case startTLS = "STARTTLS"
  case authentication = "AUTH"
  case reset = "RSET"
  case mail = "MAIL"
  case recipient = "RCPT"
  case data = "DATA"
  case message = "the message"
  case quit = "QUIT"
}

extension AnswerSorting {
  /// Sorts a reply of 4xx or 5xx, or an unexpected one. The words have to be redacted already.
  static func failure(_ reply: SMTPReply, at stage: SMTPStage, words: String) -> Failure {
    let context = "\(stage.rawValue) was refused"
    guard reply.severity >= 4 else {
      return Failure(.protocolSyntax, serverWords: words, context: "an unexpected answer to \(stage.rawValue)")
    }
    let (code, scope) = row(reply, at: stage)
    return Failure(code, scope: scope, serverWords: words, context: context)
  }

  private static func row(_ reply: SMTPReply, at stage: SMTPStage) -> (FailureCode, FailureScope?) {
    if stage == .startTLS { return (.tlsStartTLSMissing, nil) }
    let text = reply.words.lowercased()
    if let code = namedPair(reply, at: stage, text: text) { return (code, nil) }
    if reply.code == 421 { return (.smtpBusy, .server) }
    if stage == .greeting || stage == .hello {
      return reply.severity == 4 ? (.smtpBusy, .server) : (.smtpGreeting, nil)
    }
    if stage == .authentication { return authentication(reply) }
    // A contradiction between the codes is settled by the basic code's first digit.
    let enhanced = reply.enhanced.flatMap { $0.classDigit == reply.severity ? $0 : nil }
    return (reply.severity == 4 ? temporary(reply, enhanced) : final(reply, enhanced, at: stage), nil)
  }

  /// Provider answers whose pair of codes, or whose words, say more than the digits do.
  private static func namedPair(_ reply: SMTPReply, at stage: SMTPStage, text: String) -> FailureCode? {
    let enhanced = reply.enhanced?.description ?? ""
    switch (reply.code, enhanced) {
    case (535, "5.7.139"), (550, "5.7.30"): return .authTenantPolicy
    case (432, "4.3.2"): return .smtpConcurrency
    case (432, "4.7.12"): return .authPasswordTransition
    case (432, _): return stage == .authentication ? .authPasswordTransition : .smtpConcurrency
    case (550, "5.4.5"): return .smtpQuota
    case (554, "5.2.0") where ["rate", "quota", "limit", "exceeded"].contains { text.contains($0) }: return .smtpQuota
    case (452, "4.5.3") where text.contains("daily"): return .smtpQuota
    case (550, "5.7.60"): return .smtpSendAsDenied
    case (550, "5.7.1") where stage == .mail: return .smtpSendAsDenied
    case (550, "5.1.8"), (_, "5.7.708"): return .smtpSenderBlocked
    case (554, "5.2.2"): return .smtpSenderFull
    case (530, _): return .authRequired
    default: break
    }
    if text.contains("smtpclientauthentication is disabled") { return .authTenantPolicy }
    if text.contains("thread limit") { return .smtpConcurrency }
    if text.contains("too many login attempts") { return .authThrottled }
    // Postfix asks who may send as whom only at RCPT: "553 5.7.1 <a>: Sender address rejected: not owned by user b".
    if stage == .recipient, reply.severity == 5, text.contains("sender address rejected") { return .smtpSendAsDenied }
    return nil
  }

  private static func authentication(_ reply: SMTPReply) -> (FailureCode, FailureScope?) {
    let text = reply.words.lowercased()
    switch reply.code {
    case 454: return (.authThrottled, nil)
    case 400..<500: return (.smtpBusy, .mailbox)
    case 500, 502, 503, 504: return (.authNoMechanism, nil)
    case 535: return (.authRejected, nil)
    case 534:
      // Google answers 534 with "Application-specific password required" and "Please log in with your web browser".
      return text.contains("application-specific") || text.contains("web browser")
        ? (.authRejected, nil) : (.authWeak, nil)
    case 538: return (.authWeak, nil)
    default: return (.authRejectedUnspecified, nil)
    }
  }

  private static func temporary(_ reply: SMTPReply, _ enhanced: EnhancedStatusCode?) -> FailureCode {
    switch (reply.code, enhanced?.description) {
    case (452, "4.5.3"): .smtpTooManyRecipients
    case (452, "4.3.1"): .smtpStorage
    case (452, "4.2.2"), (422, _): .smtpRecipientFull
    default: .smtpBusy
    }
  }

  private static func final(_ reply: SMTPReply, _ enhanced: EnhancedStatusCode?, at stage: SMTPStage) -> FailureCode {
    if let enhanced {
      switch enhanced.description {
      case "5.3.4", "5.2.3": return .smtpTooLarge
      default: break
      }
      if enhanced.subject == 6 { return .smtpContent }
    }
    if stage == .recipient { return .smtpRecipient }
    if reply.code == 552 { return .smtpTooLarge }
    return .smtpRejected
  }
}
