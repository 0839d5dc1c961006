import AsyncHTTPClient
import NIOCore
import PostriderCore

/// Opens addresses as a person's browser does, one redirect at a time.
public enum Browser {
  /// What came back.
  public struct Page: Sendable {
    /// The status.
    public var status: Int
    /// Where to go on, for a redirect.
    public var location: String?
    /// The text.
    public var text: String
  }

  /// Opens one address.
  public static func open(_ url: String) async throws -> Page {
    var request = HTTPClientRequest(url: url)
    request.headers.add(name: "Accept", value: "text/html")
    var configuration = HTTPClient.Configuration()
    configuration.redirectConfiguration = .disallow
    let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    do {
      let response = try await client.execute(request, timeout: .seconds(60))
      let body = try await response.body.collect(upTo: 1 << 20)
      try await client.shutdown()
      return Page(
        status: Int(response.status.code), location: response.headers.first(name: "Location"),
        text: String(buffer: body))
    } catch {
      // Nothing is lost: the first error is the one that counts.
      try? await client.shutdown()
      throw error
    }
  }

  /// Consents at the provider's page and returns what its redirect carries.
  public static func consent(at url: String) async throws -> ConsentAnswer {
    let page = try await open(url)
    guard page.status == 302, let location = page.location, let query = location.split(separator: "?").last else {
      throw TestFailure("the provider's page answered \(page.status): \(page.text)")
    }
    let fields = TestHTTPServer.fields(String(query))
    return ConsentAnswer(
      state: Secret(fields["state"] ?? ""), code: fields["code"].map { Secret($0) }, error: fields["error"],
      errorDescription: fields["error_description"])
  }
}
