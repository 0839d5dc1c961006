import AsyncHTTPClient
import FoundationEssentials
import NIOCore
import NIOHTTP1
import NIOPosix
import PostriderCore

/// Speaks to the HTTP API: paths below `/api/v1`, Core's values in JSON, errors as ``ClientError``.
struct APIClient: Sendable {
  /// The base address and the token.
  let settings: ClientSettings
  private let http: HTTPClient

  /// How long an answer may take.
  static let timeout = TimeAmount.seconds(30)
  /// The largest answer that is taken into memory.
  static let maximumAnswerOctets = 64 << 20

  init(_ settings: ClientSettings) {
    self.settings = settings
    var configuration = HTTPClient.Configuration()
    // A redirect would carry the token to another host.
    configuration.redirectConfiguration = .disallow
    configuration.timeout.connect = .seconds(5)
    // A refused connection is an answer; waiting for the server to start is the caller's business.
    configuration.connectionPool.retryConnectionEstablishment = false
    http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
  }

  /// Closes the connections. The client is of no use afterwards.
  func close() async {
    // Nothing is lost when a connection does not close cleanly: every answer was read.
    try? await http.shutdown()
  }

  /// Reads a value.
  func get<Value: Decodable>(_ path: String, _ query: [(String, String?)] = []) async throws -> Value {
    try await decode(try await send(path, query), from: path)
  }

  /// Sends a value and reads the answer.
  func post<Value: Decodable>(_ path: String, _ body: some Encodable) async throws -> Value {
    let bytes = try JSONCoding.encoder().encode(body)
    return try await decode(try await send(path, [], body: ByteBuffer(bytes: bytes)), from: path)
  }

  /// Changes what is named, by a value that holds what is to be another, and reads the answer.
  func patch<Value: Decodable>(_ path: String, _ body: some Encodable) async throws -> Value {
    let bytes = try JSONCoding.encoder().encode(body)
    return try await decode(try await send(path, [], body: ByteBuffer(bytes: bytes), method: .PATCH), from: path)
  }

  /// Ends something and reads the answer.
  func delete<Value: Decodable>(_ path: String) async throws -> Value {
    try await decode(try await send(path, [], method: .DELETE), from: path)
  }

  /// Sends a message or file as it stands, read piece by piece, and reads the answer.
  func upload<Value: Decodable>(
    _ path: String, _ query: [(String, String?)], _ file: MessageFile, type: String = "message/rfc822"
  ) async throws -> Value {
    let length = file.sizeOctets.map { HTTPClientRequest.Body.Length.known($0) } ?? .unknown
    let response = try await send(
      path, query, message: .stream(file.pieces, length: length), type: type, timeout: .minutes(10))
    return try await decode(response, from: path)
  }

  /// Reads octets piece by piece, without a bound on how many there are.
  func stream(_ path: String, _ each: (ByteBuffer) async throws -> Void) async throws {
    let response = try await send(path, [], timeout: .minutes(10))
    do {
      for try await buffer in response.body { try await each(buffer) }
    } catch let error as ClientError {
      throw error
    } catch {
      throw unreachable(error)
    }
  }

  // MARK: Requests

  private func send(
    _ path: String, _ query: [(String, String?)], body: ByteBuffer? = nil, method: HTTPMethod? = nil,
    message: HTTPClientRequest.Body? = nil, type: String = "message/rfc822", timeout: TimeAmount = Self.timeout
  ) async throws -> HTTPClientResponse {
    var request = HTTPClientRequest(url: settings.url + "/api/v1" + path + Self.encoded(query))
    if let method { request.method = method }
    if !settings.token.revealed.isEmpty {
      request.headers.add(name: "Authorization", value: "Bearer \(settings.token.revealed)")
    }
    request.headers.add(name: "Accept", value: "application/json")
    if let body {
      request.method = method ?? .POST
      request.headers.add(name: "Content-Type", value: "application/json")
      request.body = .bytes(body)
    }
    if let message {
      request.method = .POST
      request.headers.add(name: "Content-Type", value: type)
      request.body = message
    }
    let response: HTTPClientResponse
    do {
      response = try await http.execute(request, timeout: timeout)
    } catch let error as ClientError {
      throw error
    } catch {
      throw unreachable(error)
    }
    if (200..<300).contains(response.status.code) { return response }
    throw await refusal(response)
  }

  private func refusal(_ response: HTTPClientResponse) async -> ClientError {
    let status = Int(response.status.code)
    let bytes = (try? await response.body.collect(upTo: 1 << 20)).map { Data($0.readableBytesView) } ?? Data()
    if var problem = try? JSONCoding.decoder().decode(Problem.self, from: bytes), problem.title ?? problem.detail != nil
    {
      problem.retryAfterSeconds = response.headers.first(name: "Retry-After").flatMap { Int($0) }
      return .refused(problem, status: status)
    }
    return .notTheAPI(url: settings.url, reason: "it says \(status) \(response.status.reasonPhrase)")
  }

  private func decode<Value: Decodable>(_ response: HTTPClientResponse, from path: String) async throws -> Value {
    let bytes: Data
    do {
      bytes = Data(try await response.body.collect(upTo: Self.maximumAnswerOctets).readableBytesView)
    } catch {
      throw unreachable(error)
    }
    do {
      return try JSONCoding.decoder().decode(Value.self, from: bytes)
    } catch {
      throw ClientError.notTheAPI(
        url: settings.url, reason: "\(path) is not what this version expects: \(Self.words(error))")
    }
  }

  private func unreachable(_ error: any Error) -> ClientError {
    .unreachable(reason: Self.words(error), tried: ["\(settings.url) (from \(settings.source))"])
  }

  /// An error in words, without the noise of the libraries' types.
  static func words(_ error: any Error) -> String {
    switch error {
    case let error as HTTPClientError: error.shortDescription
    case let error as IOError: Terminal.words(errno: error.errnoCode)
    case let error as NIOConnectionError:
      if error.dnsAError != nil || error.dnsAAAAError != nil && error.connectionErrors.isEmpty {
        "the host \(error.host) is not known"
      } else {
        error.connectionErrors.first.map { words($0.error) } ?? "the connection failed"
      }
    case let error as DecodingError: words(decoding: error)
    default: Terminal.safe("\(error)")
    }
  }

  private static func words(decoding error: DecodingError) -> String {
    func place(_ context: DecodingError.Context) -> String {
      context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }.joined(separator: "/")
    }
    return switch error {
    case .keyNotFound(let key, let context): "\(place(context))/\(key.stringValue) is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
      "/\(place(context)): \(context.debugDescription)"
    @unknown default: "it cannot be decoded"
    }
  }

  /// A query string of the values that are there, percent-encoded (RFC 3986).
  static func encoded(_ query: [(String, String?)]) -> String {
    let parts = query.compactMap { name, value in value.map { "\(name)=\(percentEncoded($0))" } }
    return parts.isEmpty ? "" : "?" + parts.joined(separator: "&")
  }

  private static func percentEncoded(_ text: String) -> String {
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "~"):
        bytes.append(byte)
      default: bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
