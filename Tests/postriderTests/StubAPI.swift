import Foundation
import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import PostriderCore
import Synchronization

@testable import postrider

/// One request as the stub saw it.
struct SeenRequest: Sendable {
  var method: String
  var path: String
  var query: [String: String]
  var authorization: String?
  var contentType: String?
  var body: [UInt8]

  /// `GET /mailboxes`
  var name: String { "\(method) \(path)" }

  func decoded<Value: Decodable>(_ type: Value.Type = Value.self) throws -> Value {
    try JSONCoding.decoder().decode(type, from: Data(body))
  }
}

/// What the stub answers.
struct StubAnswer: Sendable {
  var status = 200
  var type = "application/json"
  var body: [UInt8] = []
  /// Further headers.
  var headers: [String: String] = [:]

  /// A value as the API would send it.
  static func json(_ value: some Encodable, status: Int = 200) -> StubAnswer {
    StubAnswer(status: status, body: Array((try? JSONCoding.encoder().encode(value)) ?? Data()))
  }

  /// An error as the API would send it.
  static func problem(
    _ status: Int, _ code: String, _ detail: String, errors: [FieldProblem]? = nil
  ) -> StubAnswer {
    var answer = json(
      Problem(type: "about:blank", title: "Error", status: status, detail: detail, code: code, errors: errors),
      status: status)
    answer.type = "application/problem+json"
    return answer
  }

  static let notFound = problem(404, "not-found", "there is no such thing")
}

/// A small HTTP server that stands in for the API.
final class StubAPI: Sendable {
  private let log = Mutex<[SeenRequest]>([])
  private let address = Mutex("")

  /// Where it listens.
  var url: String { address.withLock { $0 } }
  /// Everything asked so far.
  var requests: [SeenRequest] { log.withLock { $0 } }

  /// Runs a stub while the body runs, on a free port or on a Unix socket.
  static func run(
    socket: String? = nil, answer: @escaping @Sendable (SeenRequest) throws -> StubAnswer,
    _ body: (StubAPI) async throws -> Void
  ) async throws {
    let stub = StubAPI()
    let (started, continuation) = AsyncStream<Int>.makeStream(bufferingPolicy: .bufferingNewest(1))
    var logger = Logger(label: "stub")
    logger.logLevel = .critical
    let responder = CallbackResponder<BasicRequestContext> { request, _ in
      let buffer = try await request.body.collect(upTo: 1 << 24)
      let query = request.uri.queryParameters.map { (String($0.key), String($0.value)) }
      let path = request.uri.path
      let seenRequest = SeenRequest(
        method: request.method.rawValue,
        path: path.hasPrefix("/api/v1") ? String(path.dropFirst(7)) : "no api: \(path)",
        query: Dictionary(query, uniquingKeysWith: { first, _ in first }),
        authorization: request.headers[.authorization], contentType: request.headers[.contentType],
        body: Array(buffer.readableBytesView))
      stub.log.withLock { $0.append(seenRequest) }
      let answer = try answer(seenRequest)
      var headers: HTTPFields = [.contentType: answer.type]
      for (name, value) in answer.headers { HTTPField.Name(name).map { headers[$0] = value } }
      return Response(
        status: .init(code: answer.status), headers: headers,
        body: .init(byteBuffer: ByteBuffer(bytes: answer.body)))
    }
    let address: BindAddress = socket.map { .unixDomainSocket(path: $0) } ?? .hostname("127.0.0.1", port: 0)
    let application = Application(
      responder: responder, configuration: ApplicationConfiguration(address: address),
      onServerRunning: { channel in
        continuation.yield(channel.localAddress?.port ?? 0)
        continuation.finish()
      }, logger: logger)
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await application.run() }
      var port: Int?
      for await number in started { port = number }
      let encoded = socket?.replacing("/", with: "%2F")
      stub.address.withLock { $0 = encoded.map { "http+unix://\($0)" } ?? "http://127.0.0.1:\(port ?? 0)" }
      defer { group.cancelAll() }
      try await body(stub)
    }
  }
}
