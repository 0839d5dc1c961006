import Crypto
import HTTPTypes
import Hummingbird
import NIOCore
import PostriderCore

/// The `Idempotency-Key` of a request that creates something: sent again within a day, the request is answered as before
/// and does nothing.
struct IdempotencyKey: Sendable {
  private let key: String
  private let principal: Principal
  private let store: any IdempotencyStore

  /// How long a request may be under way before another process may take its key.
  private static let claim: Duration = .seconds(60)

  /// `nil` when the request has none. Throws ``Problem`` for one that cannot be.
  init?(_ call: APICall, _ store: any IdempotencyStore) throws {
    guard let key = call.headers[.idempotencyKey] else { return nil }
    guard (1...200).contains(key.utf8.count), key.utf8.allSatisfy({ (0x20...0x7E).contains($0) }) else {
      throw Problem.invalid([
        FieldProblem("header:Idempotency-Key", "malformed", "must have 1 to 200 printable ASCII characters")
      ])
    }
    self.key = key
    self.store = store
    principal = call.principal
  }

  /// Tells requests apart: path, query and body.
  static func hash(_ route: APIRoute, _ call: APICall) -> [UInt8] {
    var hash = SHA256()
    let parameters = (call.parameters.merging(call.query) { first, _ in first }).sorted { $0.key < $1.key }
    hash.update(data: Array("\(route.description.path)\n\(parameters)\n".utf8))
    hash.update(data: call.body)
    return Array(hash.finalize())
  }

  /// Answers from memory, or carries the request out and remembers its answer. What is refused is not remembered.
  func answer(_ hash: [UInt8], _ carryOut: () async throws -> Response) async throws -> Response {
    switch try await store.claimKey(key, requestHash: hash, for: Self.claim, by: principal) {
    case .answered(let kept): return kept.response
    case .other:
      throw Problem(
        .unprocessableContent, "idempotency-key-reused",
        "This Idempotency-Key was used for another request; use a new one for each.")
    case .busy:
      throw Problem(
        .conflict, "request-in-progress", "The same request is under way; send it again in a moment.",
        headers: [.init(name: .retryAfter, value: "1")])
    case .new: break
    }
    do {
      var response = try await carryOut()
      let body = try await Self.octets(of: response)
      try await store.keepAnswer(
        KeptAnswer(
          status: response.status.code, location: response.headers[.location], body: String(buffer: body)),
        under: key, by: principal)
      response.body = .init(byteBuffer: body)
      return response
    } catch {
      // Of other errors nobody knows what was done: the key stays taken for a while.
      if Self.isRefusal(error) { try await store.releaseKey(key, by: principal) }
      throw error
    }
  }

  private static func isRefusal(_ error: any Error) -> Bool {
    switch error {
    case is Problem, is MissingRight: true
    case StoreError.invalid, StoreError.conflict, StoreError.notFound, StoreError.stale: true
    default: false
    }
  }

  private static func octets(of response: Response) async throws -> ByteBuffer {
    let collected = Collected()
    try await response.body.write(collected)
    return collected.buffer
  }

  /// Takes an answer's body, which one task writes from begin to end.
  private final class Collected: ResponseBodyWriter {
    var buffer = ByteBuffer()

    func write(_ part: ByteBuffer) async throws { buffer.writeImmutableBuffer(part) }
    func finish(_ trailers: HTTPFields?) async throws {}
  }
}

extension KeptAnswer {
  fileprivate var response: Response {
    var headers: HTTPFields = [.contentType: "application/json; charset=utf-8", .idempotencyReplayed: "true"]
    if let location { headers[.location] = location }
    return Response(
      status: HTTPResponse.Status(code: status), headers: headers,
      body: .init(byteBuffer: ByteBuffer(string: body)))
  }
}

extension HTTPField.Name {
  // Each literal is a valid field name, so none of these is ever nil.
  static let idempotencyKey = HTTPField.Name("Idempotency-Key") ?? .date
  static let idempotencyReplayed = HTTPField.Name("Idempotency-Replayed") ?? .date
  static let lastEventID = HTTPField.Name("Last-Event-ID") ?? .date
  static let accelBuffering = HTTPField.Name("X-Accel-Buffering") ?? .date
}
