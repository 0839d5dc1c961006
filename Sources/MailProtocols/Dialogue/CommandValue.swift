import PostriderCore

/// Checks on values that reach a command.
enum CommandValue {
  /// Whether a value can end or alter the command it stands in.
  static func isDangerous(_ text: String) -> Bool { text.utf8.contains { $0 == 0 || $0 == 0x0A || $0 == 0x0D } }

  /// Throws `auth.rejected`, not to be tried again, when a part of the credentials holds CR, LF or NUL, or a part of a
  /// token what would end it.
  static func check(_ credentials: Credentials) throws(Failure) {
    var parts = [("user name", credentials.userName)]
    if let identity = credentials.authorizationIdentity { parts.append(("authorization identity", identity)) }
    switch credentials.proof {
    case .password(let password): parts.append(("password", password.revealed))
    case .accessToken(let token):
      // RFC 6750 section 2.1, and ^A ends a field of XOAUTH2 and OAUTHBEARER.
      let text = token.revealed + parts.map(\.1).joined()
      guard !token.revealed.isEmpty, !text.utf8.contains(1),
        token.revealed.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
      else {
        throw Failure(
          .authRejected, class: .permanent,
          context: "the access token or the name with it holds characters that no token may hold; nothing was sent")
      }
    case .workerIdentity: break
    }
    for (name, value) in parts where isDangerous(value) {
      throw Failure(
        .authRejected, class: .permanent, context: "the \(name) holds CR, LF or NUL; nothing was sent to the server")
    }
  }
}
