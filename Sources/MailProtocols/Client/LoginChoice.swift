import PostriderCore

/// Who is logged in to, as far as a mechanism has to know it.
struct LoginTarget: Hashable, Sendable {
  /// The service's name in Kerberos: `pop` or `smtp`.
  var service: String
  var host: String
  var port: Int
  /// Whether TLS with a verified certificate hides and guards what is sent.
  var isSecure: Bool

  init(service: String, host: String, port: Int, isSecure: Bool) {
    self.service = service
    self.host = host
    self.port = port
    self.isSecure = isSecure
  }

  init(_ endpoint: MailEndpoint) {
    self.init(
      service: endpoint.kind == .pop3 ? "pop" : "smtp", host: endpoint.host, port: endpoint.port,
      isSecure: endpoint.tls != .none)
  }
}

/// A way to log in, by what it shows of the password, and whether the server has to prove itself.
enum LoginMethod: Hashable, Sendable {
  case sasl(String)
  /// USER and PASS, of POP3 only.
  case userPass

  /// As shown to people.
  var name: String {
    switch self {
    case .sasl(let name): name
    case .userPass: "USER and PASS"
    }
  }
}

/// Which way of logging in fits the profile's setting, the credentials and the server.
enum LoginChoice {
  /// With a password, from the strongest down. Behind TLS a password in the clear is safer than CRAM-MD5, for which the
  /// server has to keep it. Without TLS none goes in the clear by itself: a profile has to name `plain` or `login`.
  private static func ladder(isSecure: Bool) -> [LoginMethod] {
    let proven: [LoginMethod] = [.sasl("SCRAM-SHA-256"), .sasl("SCRAM-SHA-1")]
    let clear: [LoginMethod] = [.sasl("PLAIN"), .userPass, .sasl("LOGIN")]
    return isSecure ? proven + clear + [.sasl("CRAM-MD5")] : proven + [.sasl("CRAM-MD5")]
  }

  /// What to say beside the server's offer where a password would have had to go in the clear.
  static func hint(_ credentials: Credentials, _ setting: AuthenticationMechanism, _ target: LoginTarget) -> String {
    guard !target.isSecure, setting == .auto, credentials.password != nil else { return "" }
    return "; without TLS `auto` sends no password in the clear: use TLS, or set the authentication protocol to `plain`"
  }

  /// The methods that may be used, the best first.
  ///
  /// A refused login never leads to the next one: whoever stands between could make a server refuse the strong ones.
  static func allowed(
    _ credentials: Credentials, _ setting: AuthenticationMechanism, isSecure: Bool
  ) throws(Failure) -> [LoginMethod] {
    switch credentials.proof {
    case .accessToken:
      switch setting {
      case .auto: return [.sasl("OAUTHBEARER"), .sasl("XOAUTH2")]
      case .xoauth2: return [.sasl("XOAUTH2")]
      case .oauthbearer: return [.sasl("OAUTHBEARER")]
      default: throw mismatch(setting, "an OAuth account, which never falls back to a password")
      }
    case .workerIdentity:
      guard setting == .auto || setting == .gssapi else { throw mismatch(setting, "the worker's own identity") }
      return [.sasl("GSSAPI")]
    case .password:
      let methods = try methods(setting, isSecure: isSecure)
      guard credentials.authorizationIdentity != nil else { return methods }
      let carrying = methods.filter { $0 == .sasl("PLAIN") }
      if carrying.isEmpty { throw mismatch(setting, "an authorization identity (loginAs `authzid`)") }
      return carrying
    }
  }

  private static func methods(
    _ setting: AuthenticationMechanism, isSecure: Bool
  ) throws(Failure) -> [LoginMethod] {
    switch setting {
    case .auto: ladder(isSecure: isSecure)
    case .plain: [.sasl("PLAIN"), .userPass]
    case .login: [.sasl("LOGIN")]
    case .cramMD5: [.sasl("CRAM-MD5")]
    case .scramSHA1: [.sasl("SCRAM-SHA-1")]
    case .scramSHA256: [.sasl("SCRAM-SHA-256")]
    case .ntlm: [.sasl("NTLM")]
    case .xoauth2, .oauthbearer, .gssapi: throw mismatch(setting, "a password")
    }
  }

  private static func mismatch(_ setting: AuthenticationMechanism, _ what: String) -> Failure {
    Failure(.authNoMechanism, context: "\(setting.rawValue) does not go with \(what)")
  }

  /// The mechanism of a name that ``allowed(_:_:isSecure:)`` gave.
  static func mechanism(
    _ name: String, _ credentials: Credentials, _ target: LoginTarget
  ) throws(Failure) -> any SASLMechanism {
    let user = credentials.userName
    let identity = credentials.authorizationIdentity
    switch credentials.proof {
    case .password(let password):
      switch name {
      case "PLAIN": return PlainMechanism(userName: user, password: password, authorizationIdentity: identity)
      case "LOGIN": return LoginMechanism(userName: user, password: password)
      case "CRAM-MD5": return try CRAMMD5Mechanism(userName: user, password: password)
      case "NTLM": return try NTLMMechanism(userName: user, password: password)
      default:
        guard let hash = SCRAMMechanism.Hash(rawValue: name) else { break }
        return try SCRAMMechanism(
          hash, userName: user, password: password, authorizationIdentity: identity, host: target.host)
      }
    case .accessToken(let token):
      switch name {
      case "XOAUTH2": return XOAuth2Mechanism(userName: identity ?? user, accessToken: token)
      case "OAUTHBEARER":
        return OAuthBearerMechanism(
          identity: identity ?? user, accessToken: token, host: target.host, port: target.port)
      default: break
      }
    case .workerIdentity:
      if name == "GSSAPI" {
        return try GSSAPIMechanism(service: target.service, host: target.host, authorizationIdentity: identity)
      }
    }
    throw Failure(.internalError, context: "no mechanism \(name)")
  }
}

/// Which way of logging in to POP3 fits.
enum POP3LoginChoice {
  /// Throws `auth.no-mechanism`.
  static func choose(
    _ credentials: Credentials, _ setting: AuthenticationMechanism, _ capabilities: POP3Capabilities,
    _ target: LoginTarget
  ) throws(Failure) -> POP3Login {
    // A server that knows CAPA and lists neither USER nor a mechanism forbids passwords here, as before STLS.
    let takesUser = !capabilities.isKnown || capabilities.user
    for method in try LoginChoice.allowed(credentials, setting, isSecure: target.isSecure) {
      switch method {
      case .userPass:
        if takesUser, let password = credentials.password {
          return .userPass(userName: credentials.userName, password: password)
        }
      case .sasl(let name):
        if capabilities.sasl.contains(name) {
          return .sasl(try LoginChoice.mechanism(name, credentials, target), credentials)
        }
      }
    }
    throw Failure(
      .authNoMechanism,
      context: "the server offers: \(capabilities.summary)" + LoginChoice.hint(credentials, setting, target))
  }
}

/// Which SASL mechanism fits for SMTP.
enum SMTPLoginChoice {
  /// Throws `auth.no-mechanism`.
  static func choose(
    _ credentials: Credentials, _ setting: AuthenticationMechanism, _ extensions: SMTPExtensions, _ target: LoginTarget
  ) throws(Failure) -> any SASLMechanism {
    let offered = extensions.authenticationMechanisms
    for method in try LoginChoice.allowed(credentials, setting, isSecure: target.isSecure) {
      if case .sasl(let name) = method, offered.contains(name) {
        return try LoginChoice.mechanism(name, credentials, target)
      }
    }
    throw Failure(
      .authNoMechanism,
      context: offered.isEmpty
        ? "the server offers no login"
        : "the server offers: \(offered.sorted().joined(separator: " "))"
          + LoginChoice.hint(credentials, setting, target))
  }
}

extension POP3Login {
  /// The method as shown to people.
  var name: String {
    switch self {
    case .userPass: LoginMethod.userPass.name
    case .sasl(let mechanism, _): mechanism.name
    }
  }
}
