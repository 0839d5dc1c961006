import Synchronization

/// Tells a mail server whose access tokens are good: HTTP on 127.0.0.1, asked by a GET whose path ends with `token=` and
/// the token, answered as by RFC 7662.
public final class TokenServer: Sendable {
  /// Tokens and the user names they stand for; tokens are of letters, digits and `-._~` only.
  private final class Grants: Sendable {
    let names = Mutex<[String: String]>([:])

    /// The answer to a request, whose first line is known at its last, empty one.
    func answer(_ request: String) -> String {
      let path = request.split(separator: " ").dropFirst().first ?? ""
      // Dovecot adds parameters of its own behind the token.
      let token = path.split(separator: "token=").last.map { String($0.prefix { $0 != "&" }) } ?? ""
      let name = names.withLock { $0[token] }
      let body = name.map { "{\"active\":true,\"username\":\"\($0)\",\"scope\":\"mail\"}" } ?? "{\"active\":false}"
      return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }
  }

  private let server: ScriptedMailServer
  private let grants: Grants

  private init(server: ScriptedMailServer, grants: Grants) {
    self.server = server
    self.grants = grants
  }

  /// Starts a server that knows no token.
  public static func start() async throws -> TokenServer {
    let grants = Grants()
    let server = try await ScriptedMailServer.start { _ in
      let request = Mutex("")
      return [
        .serve { line in
          if line.isEmpty { return .text(grants.answer(request.withLock { $0 })) }
          if line.hasPrefix("GET ") { request.withLock { $0 = line } }
          return .text("")
        }
      ]
    }
    return TokenServer(server: server, grants: grants)
  }

  /// Where a token is asked about; the token is appended.
  public var url: String { "http://127.0.0.1:\(server.port)/introspect?token=" }

  /// Makes a token good for a user name.
  public func grant(_ token: String, to name: String) { grants.names.withLock { $0[token] = name } }

  /// Makes a token bad.
  public func revoke(_ token: String) { grants.names.withLock { $0[token] = nil } }

  /// Stops listening.
  public func stop() async { await server.stop() }
}
