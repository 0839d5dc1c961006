import AdminServer
import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import postrider

@Suite("Signing in from the command line (feature A4)")
struct LoginTests {
  private struct Started: Encodable {
    var token: String
    var principal: Principal
    var expiresAt: Date
    var idleSeconds = 1_800
  }

  private static let principal = Principal(
    organizationID: OrganizationID(3), userID: UserID(4), name: "Ada", role: .reader)

  private static func answer(
    _ request: SeenRequest, expiresAt: Date = Date(timeIntervalSinceNow: 3_600)
  ) -> StubAnswer {
    switch request.name {
    case "POST /sessions":
      return .json(Started(token: "session-token", principal: principal, expiresAt: expiresAt), status: 201)
    case "GET /whoami": return .json(principal)
    case "DELETE /sessions/current": return .json(["signedOut": true])
    default: return .notFound
    }
  }

  /// Runs the program with a configuration folder, without a token.
  private func run(_ folder: String, _ arguments: String..., input: String = "") async throws -> Program.Result {
    try await Program.run(arguments, environment: ["XDG_CONFIG_HOME": folder], input: input)
  }

  private let password = "correct horse battery\n"

  @Test("a session is kept for its user alone, used by other commands, and ended on the server")
  func life() async throws {
    try await withFolder { folder in
      try await StubAPI.run(answer: { Self.answer($0) }) { stub in
        let file = folder + "/postrider/session.json"
        let login = try await run(
          folder, "login", "ada@example.com", "--organization", "Example", "--api", stub.url + "/", "--password-stdin",
          input: password)
        #expect(login.exitCode == 0 && login.output.contains("as Ada (reader) until"), "\(login.errors)")
        #expect(!(login.output + login.errors).contains("session-token"))
        #expect(SecretFile.mode(file) == 0o600 && SecretFile.mode(folder + "/postrider") == 0o700)
        #expect(try FileManager.default.contentsOfDirectory(atPath: folder + "/postrider") == ["session.json"])
        let sent = try #require(stub.requests.first)
        #expect(sent.name == "POST /sessions" && sent.authorization == nil)
        #expect(
          String(decoding: sent.body, as: UTF8.self)
            == #"{"address":"ada@example.com","organization":"Example","password":"correct horse battery"}"#)

        let who = try await run(folder, "whoami")
        #expect(who.exitCode == 0 && who.output.contains("\(stub.url) (from postrider login)"), "\(who.errors)")
        #expect(stub.requests.last?.authorization == "Bearer session-token")
        // Another token goes before; another server never gets this one.
        _ = try await run(folder, "whoami", "--token", "other")
        #expect(stub.requests.last?.authorization == "Bearer other")
        let elsewhere = try await run(folder, "whoami", "--api-url", "http://127.0.0.1:1")
        #expect(elsewhere.exitCode == 64 && elsewhere.errors.contains("there is no token for http://127.0.0.1:1"))

        // Signing in again ends the session that nobody has any more.
        let again = try await run(
          folder, "login", "ada@example.com", "--organization", "Example", "--password-stdin", "--json", input: password
        )
        #expect(again.exitCode == 0 && !again.output.contains("session-token"), "\(again.errors)")
        #expect(stub.requests.last?.name == "DELETE /sessions/current")

        let logout = try await run(folder, "logout")
        #expect(logout.exitCode == 0 && logout.output == "Signed out at \(stub.url).\n", "\(logout.errors)")
        #expect(stub.requests.last?.name == "DELETE /sessions/current")
        #expect(stub.requests.last?.authorization == "Bearer session-token")
        #expect(!FileManager.default.fileExists(atPath: file))
        #expect(try await run(folder, "logout").output == "Nobody is signed in.\n")
      }
    }
  }

  @Test("what stops it is told: a wrong password, too many attempts, no server, plain HTTP, no password")
  func refusals() async throws {
    try await withFolder { folder in
      let refusal = Mutex(
        StubAnswer.problem(401, "sign-in-refused", "The password is wrong, or there were too many wrong passwords."))
      try await StubAPI.run(answer: { _ in refusal.withLock { $0 } }) { stub in
        func login(_ url: String, _ more: String..., input: String) async throws -> Program.Result {
          try await Program.run(
            ["login", "ada@example.com", "--organization", "Example", "--api", url] + more,
            environment: ["XDG_CONFIG_HOME": folder], input: input)
        }
        let wrong = try await login(stub.url, "--password-stdin", input: password)
        #expect(wrong.exitCode == 1 && wrong.errors.contains("too many wrong passwords"), "\(wrong.errors)")
        #expect(!wrong.errors.contains("POSTRIDER_TOKEN"))
        refusal.withLock {
          $0 = .problem(429, "too-many-requests", "There were too many attempts.")
          $0.headers = ["Retry-After": "17"]
        }
        let many = try await login(stub.url, "--password-stdin", input: password)
        #expect(many.exitCode == 1 && many.errors.contains("Try again in 17 seconds."), "\(many.errors)")
        let nowhere = try await login("http://127.0.0.1:1", "--password-stdin", input: password)
        #expect(nowhere.exitCode == 69 && nowhere.errors.contains("Connection refused"), "\(nowhere.errors)")
        let before = stub.requests.count
        let plain = try await login("http://192.0.2.1", "--password-stdin", input: password)
        #expect(plain.exitCode == 64 && plain.errors.contains("plain HTTP"), "\(plain.errors)")
        let none = try await login(stub.url, input: "")
        #expect(none.exitCode == 64 && none.errors.contains("no terminal to ask at"), "\(none.errors)")
        let argument = try await login(stub.url, "--password", "correct horse battery", input: "")
        #expect(argument.exitCode == 64 && argument.errors.contains("never an argument"))
        #expect(stub.requests.count == before)
        #expect(!FileManager.default.fileExists(atPath: folder + "/postrider"))
      }
    }
  }

  @Test("an ended session says so; signing out without the server forgets it nevertheless")
  func ended() async throws {
    try await withFolder { folder in
      let file = folder + "/postrider/session.json"
      var session = SessionFile(
        url: "http://127.0.0.1:1", token: "t", address: "ada@example.com", organization: "Example",
        expiresAt: Date(timeIntervalSinceNow: -5))
      try session.write(file)
      let who = try await run(folder, "whoami")
      #expect(who.exitCode == 1 && who.errors.contains("the session of ada@example.com ended at"), "\(who.errors)")
      session.expiresAt = Date(timeIntervalSinceNow: 500)
      try session.write(file)
      let logout = try await run(folder, "logout")
      #expect(logout.exitCode == 69 && logout.errors.contains("ends by itself"), "\(logout.errors)")
      #expect(!FileManager.default.fileExists(atPath: file))

      // What cannot be read does not count, and is replaced.
      try Data("{".utf8).write(to: URL(filePath: file))
      let broken = try await run(folder, "whoami", "--api-url", "http://127.0.0.1:1")
      #expect(broken.exitCode == 64 && broken.errors.contains("cannot be read and does not count"), "\(broken.errors)")
      #expect(try await run(folder, "logout").exitCode == 0)
      #expect(!FileManager.default.fileExists(atPath: file))
    }
  }

  @Test("a session that the server ended elsewhere asks for signing in; signing out of it is no error")
  func endedElsewhere() async throws {
    try await withFolder { folder in
      try await StubAPI.run(answer: { _ in .problem(401, "unauthorized", "The token is not valid.") }) { stub in
        try SessionFile(
          url: stub.url, token: "t", address: "ada@example.com", organization: "Example",
          expiresAt: Date(timeIntervalSinceNow: 500)
        ).write(folder + "/postrider/session.json")
        let who = try await run(folder, "whoami")
        #expect(who.exitCode == 1 && who.errors.contains("Sign in with `postrider login`"), "\(who.errors)")
        #expect(try await run(folder, "logout").exitCode == 0)
      }
    }
  }

  @Test(
    "plain HTTP is read by others unless it stays on the machine",
    arguments: [
      ("http://localhost:8080", false), ("http://127.0.0.1", false), ("http://[::1]:80", false),
      ("https://mail.example.com", false), ("http+unix://%2Fa", false), ("http://127.0.0.1.example.com", true),
      ("HTTP://mail.example.com:80", true),
    ])
  func readable(url: String, expected: Bool) { #expect(ClientSettings.isReadable(url) == expected) }
}
