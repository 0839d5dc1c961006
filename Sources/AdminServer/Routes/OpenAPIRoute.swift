import Hummingbird
import NIOCore

/// `GET /openapi.json`: the API as a document. Without a token: it says nothing that the source does not.
enum OpenAPIRoute {
  static let path = "/openapi.json"
  static let description = RouteDescription(
    method: "GET", path: path, access: .open, query: [], body: nil, status: 200,
    summary: "This document (OpenAPI 3.1).", answer: .octets(mediaType: "application/json"))

  static func endpoint(_ configuration: AdminServerConfiguration) -> Endpoint {
    let document = ByteBuffer(string: AdminServer.openAPI(configuration))
    return Endpoint(.get, path) { _ in
      Response(
        status: .ok, headers: [.contentType: "application/json; charset=utf-8"], body: .init(byteBuffer: document))
    }
  }
}
