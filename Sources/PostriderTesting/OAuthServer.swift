import Crypto
import CryptoExtras
import FoundationEssentials
import PostriderCore
import Synchronization

/// An authorization server on 127.0.0.1 (RFC 6749): consents at once, hands out and renews tokens, tells a mail server whose
/// they are (RFC 7662), takes them back (RFC 7009). It checks what a real one checks, PKCE and assertions included.
public final class OAuthServer: Sendable {
  /// How it behaves; may be changed while it runs.
  public struct Behaviour: Sendable {
    /// How long access tokens live, seconds.
    public var life = 3_600
    /// Whether each refresh hands out a new refresh token and ends the old one.
    public var rotates = false
    /// Whether refresh tokens are handed out at all.
    public var isOffline = true
    /// Whether the owner says no.
    public var declines = false
    /// What is granted; `nil`: what is asked for.
    public var granted: String?
    /// Answers every question at the token endpoint so.
    public var fault: TestHTTPServer.Response?
    /// Waited for before an answer of the token endpoint.
    public var hold: ScriptSignal?

    /// A server that does its work.
    public init() {}
  }

  private struct Grant {
    var user: String
    var client: String
    var scope: String
  }

  private struct State {
    var behaviour = Behaviour()
    var secrets: [String: String] = [:]
    var keys: [String: String] = [:]
    var codes: [String: (grant: Grant, challenge: String, redirect: String)] = [:]
    var refresh: [String: Grant] = [:]
    var access: [String: (user: String, ends: Date)] = [:]
    var count = 0
    var refreshes = 0
  }

  private let state: SharedState
  private let server: TestHTTPServer

  private final class SharedState: Sendable {
    let value = Mutex(State())
  }

  private init(_ state: SharedState, _ server: TestHTTPServer) {
    self.state = state
    self.server = server
  }

  /// Starts one that knows one application.
  public static func start(clientID: String = "client", secret: String? = "client-secret") async throws -> OAuthServer {
    let state = SharedState()
    state.value.withLock { $0.secrets[clientID] = secret ?? "" }
    let server = try await TestHTTPServer.start { request in await answer(request, state) }
    return OAuthServer(state, server)
  }

  /// Where owners consent.
  public var authorizationURL: String { server.url("/authorize") }
  /// Where tokens come from.
  public var tokenURL: String { server.url("/token") }
  /// Where tokens are taken back.
  public var revocationURL: String { server.url("/revoke") }
  /// Where a mail server asks about a token, which is appended.
  public var introspectionURL: String { server.url("/introspect?token=") }
  /// What was asked.
  public var requests: [TestHTTPServer.Request] { server.requests }
  /// How often a refresh was answered with tokens.
  public var refreshes: Int { state.value.withLock { $0.refreshes } }
  /// Refresh tokens that are good.
  public var refreshTokens: [String] { state.value.withLock { Array($0.refresh.keys) } }
  /// Access tokens that are good.
  public var accessTokens: [String] { state.value.withLock { Array($0.access.keys) } }

  /// Changes how it behaves.
  public func change(_ change: (inout Behaviour) -> Void) { state.value.withLock { change(&$0.behaviour) } }

  /// Knows a service account by its public key in PEM.
  public func addServiceAccount(_ address: String, publicKeyPEM: String) {
    state.value.withLock { $0.keys[address] = publicKeyPEM }
  }

  /// Sets an application's secret.
  public func setSecret(_ secret: String, of client: String = "client") {
    state.value.withLock { $0.secrets[client] = secret }
  }

  /// Ends every access token, as if its time were over.
  public func expireAccessTokens() { state.value.withLock { $0.access = [:] } }

  /// Ends every consent.
  public func revokeGrants() {
    state.value.withLock {
      $0.refresh = [:]
      $0.access = [:]
    }
  }

  /// Stops listening.
  public func stop() async { await server.stop() }

  // MARK: Answers

  private static func answer(_ request: TestHTTPServer.Request, _ state: SharedState) async -> TestHTTPServer.Response {
    switch (request.method, request.path) {
    case ("GET", "/authorize"): return state.value.withLock { authorize(request.query, &$0) }
    case ("POST", "/token"):
      let (fault, hold) = state.value.withLock { ($0.behaviour.fault, $0.behaviour.hold) }
      if let hold { await hold.wait() }
      if let fault { return fault }
      return state.value.withLock { token(request, &$0) }
    case ("GET", "/introspect"):
      let token = request.query["token"] ?? ""
      return state.value.withLock { state in
        guard let known = state.access[token], known.ends > Date() else { return .json(200, #"{"active":false}"#) }
        return .json(200, #"{"active":true,"username":"\#(known.user)","scope":"mail"}"#)
      }
    case ("POST", "/revoke"):
      state.value.withLock { $0.refresh[request.form["token"] ?? ""] = nil }
      return TestHTTPServer.Response(200)
    default: return TestHTTPServer.Response(404)
    }
  }

  private static func authorize(_ query: [String: String], _ state: inout State) -> TestHTTPServer.Response {
    guard query["response_type"] == "code", let client = query["client_id"], state.secrets[client] != nil,
      let redirect = query["redirect_uri"], let challenge = query["code_challenge"], challenge.utf8.count == 43,
      query["code_challenge_method"] == "S256", let word = query["state"]
    else { return TestHTTPServer.Response(400, "not an authorization request of RFC 6749 with PKCE") }
    if state.behaviour.declines {
      return redirected(redirect, "error=access_denied&error_description=The%20owner%20said%20no&state=\(word)")
    }
    state.count += 1
    let code = "code-\(state.count)-\(UInt64.random(in: 0 ... .max))"
    state.codes[code] = (
      Grant(user: query["login_hint"] ?? "", client: client, scope: query["scope"] ?? ""), challenge, redirect
    )
    return redirected(redirect, "code=\(code)&state=\(word)")
  }

  private static func redirected(_ url: String, _ query: String) -> TestHTTPServer.Response {
    TestHTTPServer.Response(302, headers: [("Location", "\(url)?\(query)")])
  }

  private static func token(_ request: TestHTTPServer.Request, _ state: inout State) -> TestHTTPServer.Response {
    let form = request.form
    if form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer" { return assertion(form, &state) }
    guard let client = form["client_id"], let secret = state.secrets[client], secret == form["client_secret"] ?? ""
    else {
      return refusal(401, "invalid_client", "AADSTS7000215: Invalid client secret provided.")
    }
    switch form["grant_type"] {
    case "authorization_code":
      guard let known = state.codes.removeValue(forKey: form["code"] ?? ""), known.grant.client == client,
        known.redirect == form["redirect_uri"],
        Data(SHA256.hash(data: Data((form["code_verifier"] ?? "").utf8))).base64URLText == known.challenge
      else { return refusal(400, "invalid_grant", "the code, the redirect URI or the code verifier is wrong") }
      return issue(known.grant, &state, refresh: state.behaviour.isOffline ? newToken("refresh", &state) : nil)
    case "refresh_token":
      let old = form["refresh_token"] ?? ""
      guard let grant = state.refresh[old], grant.client == client else {
        return refusal(400, "invalid_grant", "Token has been expired or revoked: \(old)")
      }
      state.refreshes += 1
      var next: String?
      if state.behaviour.rotates {
        state.refresh[old] = nil
        next = newToken("refresh", &state)
      }
      return issue(grant, &state, refresh: next)
    case "client_credentials":
      state.refreshes += 1
      return issue(Grant(user: "*", client: client, scope: form["scope"] ?? ""), &state, refresh: nil)
    default: return refusal(400, "unsupported_grant_type", "")
    }
  }

  private struct Claims: Decodable {
    var iss: String
    var sub: String
    var exp: Double
    var iat: Double
  }

  private static func assertion(_ form: [String: String], _ state: inout State) -> TestHTTPServer.Response {
    let parts = (form["assertion"] ?? "").split(separator: ".")
    guard parts.count == 3, let payload = Data(base64URL: parts[1]), let signature = Data(base64URL: parts[2]),
      let claims = try? JSONDecoder().decode(Claims.self, from: payload), let pem = state.keys[claims.iss],
      let key = try? _RSA.Signing.PublicKey(pemRepresentation: pem)
    else { return refusal(400, "invalid_grant", "Invalid JWT: it cannot be read") }
    let digest = SHA256.hash(data: Data("\(parts[0]).\(parts[1])".utf8))
    let now = Date().timeIntervalSince1970
    guard
      key.isValidSignature(
        _RSA.Signing.RSASignature(rawRepresentation: signature), for: digest, padding: .insecurePKCS1v1_5),
      claims.iat <= now, claims.exp > now, claims.exp - claims.iat <= 3_600
    else { return refusal(400, "invalid_grant", "Invalid JWT Signature.") }
    state.refreshes += 1
    return issue(Grant(user: claims.sub, client: claims.iss, scope: ""), &state, refresh: nil)
  }

  private static func newToken(_ kind: String, _ state: inout State) -> String {
    state.count += 1
    return "\(kind).\(state.count).\(UInt64.random(in: 0 ... .max))"
  }

  private static func issue(_ grant: Grant, _ state: inout State, refresh: String?) -> TestHTTPServer.Response {
    let token = newToken("access", &state)
    state.access[token] = (grant.user, Date().addingTimeInterval(Double(state.behaviour.life)))
    if let refresh { state.refresh[refresh] = grant }
    let scope = state.behaviour.granted ?? grant.scope
    let more = refresh.map { #","refresh_token":"\#($0)""# } ?? ""
    return .json(
      200,
      #"{"access_token":"\#(token)","token_type":"Bearer","expires_in":\#(state.behaviour.life),"scope":"\#(scope)"\#(more)}"#
    )
  }

  private static func refusal(_ status: Int, _ error: String, _ words: String) -> TestHTTPServer.Response {
    .json(status, #"{"error":"\#(error)","error_description":"\#(words)"}"#)
  }
}

extension Data {
  fileprivate var base64URLText: String {
    base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
  }

  fileprivate init?(base64URL text: Substring) {
    let plain = text.replacing("-", with: "+").replacing("_", with: "/")
    self.init(base64Encoded: plain + String(repeating: "=", count: (4 - plain.count % 4) % 4))
  }
}
