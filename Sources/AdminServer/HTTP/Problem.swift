import HTTPTypes
import Hummingbird
import PostriderCore

/// An error as the API answers it: a problem document (RFC 9457).
public struct Problem: Error, Hashable, Sendable, Codable {
  /// `urn:postrider:problem:<code>`.
  public var type: String
  /// The status in words.
  public var title: String
  /// The HTTP status.
  public var status: Int
  /// What is wrong and what would be right, for people.
  public var detail: String
  /// Stable, for programs: `not-found`, `invalid`, `insecure-channel`, …
  public var code: String
  /// Every wrong field of a 422.
  ///
  /// The pointer is a JSON pointer into the body, `?name` for a parameter of the query, `{name}` for one of the path;
  /// `header:name` or `line:12` of a body that is a message.
  public var errors: [FieldProblem]?
  /// By which the log knows the request; only in a 500.
  public var requestID: String?
  /// Fields of the answer besides the usual ones.
  var headers: [Header] = []

  /// A field of the answer.
  struct Header: Hashable, Sendable {
    let name: HTTPField.Name
    let value: String
  }

  private enum CodingKeys: String, CodingKey {
    case type, title, status, detail, code, errors, requestID
  }

  init(
    _ status: HTTPResponse.Status, _ code: String, _ detail: String, errors: [FieldProblem]? = nil,
    headers: [Header] = []
  ) {
    self.type = "urn:postrider:problem:\(code)"
    self.title = status.reasonPhrase
    self.status = status.code
    self.detail = detail
    self.code = code
    self.errors = errors
    self.headers = headers
  }

  /// The problem as an answer.
  func response() -> Response {
    var fields: HTTPFields = [.contentType: "application/problem+json"]
    for header in headers { fields[header.name] = header.value }
    // Encoding these plain values cannot fail; an empty body would still carry the status.
    let body = (try? APICoding.encode(self)) ?? ByteBuffer()
    return Response(
      status: HTTPResponse.Status(code: status, reasonPhrase: title), headers: fields, body: .init(byteBuffer: body))
  }
}
