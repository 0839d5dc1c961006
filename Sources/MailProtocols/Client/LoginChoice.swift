import PostriderCore

/// Which way of logging in to POP3 fits the profile's setting, the credentials and the server.
enum POP3LoginChoice {
  /// Throws `auth.no-mechanism` or `profile.not-supported`.
  static func choose(
    _ credentials: Credentials, _ mechanism: AuthenticationMechanism, _ capabilities: POP3Capabilities
  ) throws(Failure) -> POP3Login {
    let plain = capabilities.sasl.contains("PLAIN")
    let login = capabilities.sasl.contains("LOGIN")
    // A server that knows CAPA and lists neither USER nor a mechanism forbids passwords here, as before STLS. USER cannot
    // carry a second identity.
    let user = (!capabilities.isKnown || capabilities.user) && credentials.authorizationIdentity == nil
    switch mechanism {
    case .auto, .plain:
      if plain { return .sasl(PlainMechanism(credentials), credentials) }
      if user { return .userPass(credentials) }
      if login, mechanism == .auto, credentials.authorizationIdentity == nil {
        return .sasl(LoginMechanism(credentials), credentials)
      }
    case .login:
      if login { return .sasl(LoginMechanism(credentials), credentials) }
    case .cramMD5, .scramSHA1, .scramSHA256, .xoauth2, .oauthbearer, .ntlm, .gssapi:
      throw Failure(.profileNotSupported, context: "the mechanism \(mechanism.rawValue) for POP3")
    }
    throw Failure(.authNoMechanism, context: "the server offers: \(capabilities.summary)")
  }
}

/// Which SASL mechanism fits for SMTP.
enum SMTPLoginChoice {
  /// Throws `auth.no-mechanism` or `profile.not-supported`.
  static func choose(
    _ credentials: Credentials, _ mechanism: AuthenticationMechanism, _ extensions: SMTPExtensions
  ) throws(Failure) -> any SASLMechanism {
    let offered = extensions.authenticationMechanisms
    switch mechanism {
    case .auto, .plain:
      if offered.contains("PLAIN") { return PlainMechanism(credentials) }
      if mechanism == .auto, offered.contains("LOGIN"), credentials.authorizationIdentity == nil {
        return LoginMechanism(credentials)
      }
    case .login:
      if offered.contains("LOGIN") { return LoginMechanism(credentials) }
    case .cramMD5, .scramSHA1, .scramSHA256, .xoauth2, .oauthbearer, .ntlm, .gssapi:
      throw Failure(.profileNotSupported, context: "the mechanism \(mechanism.rawValue) for SMTP")
    }
    throw Failure(
      .authNoMechanism,
      context: offered.isEmpty
        ? "the server offers no login" : "the server offers: \(offered.sorted().joined(separator: " "))")
  }
}
