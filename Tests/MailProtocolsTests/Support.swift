import Foundation
import NIOCore
import NIOPosix
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

/// Names and their addresses, without a name server.
struct StaticResolver: MailResolver {
  var hosts: [String: [String]] = ["mail.example.test": ["127.0.0.1"], "other.example.test": ["127.0.0.1"]]

  func resolve(_ host: String) async throws(Failure) -> [IPAddress] {
    guard let addresses = hosts[host] else { throw Failure(.dnsUnknownHost, context: host) }
    return addresses.compactMap { IPAddress($0) }
  }
}

/// A throw-away authority and leaves of every kind, made once per test run.
struct Certificates: Sendable {
  let authority: String
  let good: ScriptedTLS
  let old: ScriptedTLS
  let expired: ScriptedTLS
  let notYet: ScriptedTLS
  let otherName: ScriptedTLS
  let untrusted: ScriptedTLS
  let nameless: ScriptedTLS
  let wildcard: ScriptedTLS

  private static let shared = Task { try await Certificates() }

  static func get() async throws -> Certificates { try await shared.value }

  private init() async throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("postrider-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let script = """
      set -e
      key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }
      authority() { key "$1"; openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 2 -out "$1.pem"; }
      leaf() {
        key "$2"; openssl req -new -key "$2.key" -subj "/CN=mail.example.test" -out "$2.csr"
        printf '[e]\\n%s\\n' "$3" > "$2.ext"; : > index.txt; echo 01 > serial
        printf '[ca]\\ndefault_ca=c\\n[c]\\ndatabase=index.txt\\nserial=serial\\nnew_certs_dir=.\\n' > ca.cnf
        printf 'default_md=sha256\\npolicy=p\\nunique_subject=no\\n[p]\\ncommonName=supplied\\n' >> ca.cnf
        openssl ca -batch -notext -config ca.cnf -cert "$1.pem" -keyfile "$1.key" -in "$2.csr" -out "$2.pem" \
          -startdate "$4" -enddate "$5" -extfile "$2.ext" -extensions e
      }
      authority first; authority second
      leaf first good subjectAltName=DNS:mail.example.test,IP:127.0.0.1 20200101000000Z 20991231235959Z
      leaf first expired subjectAltName=DNS:mail.example.test 20200101000000Z 20200201000000Z
      leaf first notyet subjectAltName=DNS:mail.example.test 20980101000000Z 20991231235959Z
      leaf first othername subjectAltName=DNS:elsewhere.example.test 20200101000000Z 20991231235959Z
      leaf first nameless basicConstraints=CA:FALSE 20200101000000Z 20991231235959Z
      leaf first wildcard 'subjectAltName=DNS:*.example.test' 20200101000000Z 20991231235959Z
      leaf second untrusted subjectAltName=DNS:mail.example.test 20200101000000Z 20991231235959Z
      """
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/sh")
    process.arguments = ["-c", script]
    process.currentDirectoryURL = directory
    process.standardOutput = FileHandle.nullDevice
    let errors = directory.appendingPathComponent("errors")
    _ = FileManager.default.createFile(atPath: errors.path, contents: nil)
    process.standardError = try FileHandle(forWritingTo: errors)
    // Waiting on a thread of the pool would hold up every other test.
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
      process.terminationHandler = { _ in continuation.resume() }
      do {
        try process.run()
      } catch {
        continuation.resume(throwing: error)
      }
    }
    func read(_ name: String) throws -> String {
      try String(contentsOf: directory.appendingPathComponent(name), encoding: .utf8)
    }
    guard process.terminationStatus == 0 else { throw CertificateError(text: try read("errors")) }
    func identity(_ name: String, isOld: Bool = false) throws -> ScriptedTLS {
      ScriptedTLS(certificatesPEM: try read("\(name).pem"), privateKeyPEM: try read("\(name).key"), isOld: isOld)
    }
    authority = try read("first.pem")
    good = try identity("good")
    old = try identity("good", isOld: true)
    expired = try identity("expired")
    notYet = try identity("notyet")
    otherName = try identity("othername")
    untrusted = try identity("untrusted")
    nameless = try identity("nameless")
    wildcard = try identity("wildcard")
  }

  struct CertificateError: Error { let text: String }
}

/// A client that may reach the scripted servers.
func makeClient(
  egress: String = "127.0.0.0/8:*", resolver: any MailResolver = StaticResolver()
) throws -> MailClient {
  MailClient(
    group: MultiThreadedEventLoopGroup.singleton, egress: try EgressPolicy(allow: egress), resolver: resolver)
}

extension MailEndpoint {
  /// An endpoint at a scripted server.
  static func test(
    _ kind: ProtocolKind, _ server: ScriptedMailServer, tls: TLSMode = .none, host: String = "mail.example.test",
    answer: Duration = .seconds(60)
  ) async throws -> MailEndpoint {
    MailEndpoint(
      kind: kind, host: host, port: server.port, tls: tls,
      caCertificatesPEM: tls == .none ? nil : try await Certificates.get().authority, connectTimeout: .seconds(60),
      answerTimeout: answer, finalAnswerTimeout: answer)
  }
}

let anna = Credentials(userName: "anna", password: Secret("correct horse"))

extension PlainMechanism {
  /// With a password.
  init(_ credentials: Credentials) {
    self.init(
      userName: credentials.userName, password: credentials.password ?? Secret(""),
      authorizationIdentity: credentials.authorizationIdentity)
  }
}

extension LoginMechanism {
  /// With a password.
  init(_ credentials: Credentials) {
    self.init(userName: credentials.userName, password: credentials.password ?? Secret(""))
  }
}

extension POP3Login {
  /// USER and PASS.
  static func userPass(_ credentials: Credentials) -> POP3Login {
    .userPass(userName: credentials.userName, password: credentials.password ?? Secret(""))
  }
}

/// The failure that a body throws; an issue is recorded when it throws none.
func failure(
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () async throws -> Void
) async -> Failure? {
  do {
    try await body()
    Issue.record("nothing was thrown", sourceLocation: sourceLocation)
  } catch let failure as Failure {
    return failure
  } catch {
    Issue.record("thrown was \(error)", sourceLocation: sourceLocation)
  }
  return nil
}

/// Everything of a retrieval, as text.
final class Collected {
  var texts: [Int: String] = [:]
  var ends: [Int: Int64] = [:]
  var refused: [Int: Failure] = [:]
  var order: [Int] = []

  func take(_ number: Int, _ chunk: MessageChunk) {
    switch chunk {
    case .octets(let octets): texts[number, default: ""] += String(decoding: octets, as: UTF8.self)
    case .end(let size):
      ends[number] = size
      order.append(number)
    case .refused(let failure):
      refused[number] = failure
      order.append(number)
    }
  }
}
