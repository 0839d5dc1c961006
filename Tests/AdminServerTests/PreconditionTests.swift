import FoundationEssentials
import Hummingbird
import PostriderCore
import Testing

@testable import AdminServer

@Suite("ETag, If-Match, If-None-Match (RFC 9110 section 13)")
struct PreconditionTests {
  let api = TestAPI(channel: .unixSocket)

  @Test("one thing has an ETag of version and content; lists have none")
  func tags() async throws {
    try await api.with { client in
      let made = try await client.post("/mailboxes", #"{"address":"a@example.com"}"#)
      let tag = try #require(made.headers[.eTag])
      #expect(tag.hasPrefix("\"1-"))
      #expect(try await client.get("/mailboxes/1").headers[.eTag] == tag)
      #expect(try await client.get("/mailboxes").headers[.eTag] == nil)
      // What sessions write changes the tag, not the version.
      api.store.change { $0.mailboxes[0].emailCount = 5 }
      let other = try #require(try await client.get("/mailboxes/1").headers[.eTag])
      #expect(other != tag && other.hasPrefix("\"1-"))
    }
  }

  @Test("If-None-Match: 304 while nothing has changed")
  func unchanged() async throws {
    try await api.with { client in
      let tag = try #require(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).headers[.eTag])
      for field in [tag, "W/\(tag)", "\"x\", \(tag)", "*"] {
        let answer = try await client.get("/mailboxes/1", headers: [.ifNoneMatch: field])
        #expect(answer.status == 304 && answer.body.isEmpty && answer.headers[.eTag] == tag, "\(field)")
      }
      api.store.change { $0.mailboxes[0].emailCount = 5 }
      #expect(try await client.get("/mailboxes/1", headers: [.ifNoneMatch: tag]).status == 200)
    }
  }

  static let json: HTTPFields = [.contentType: "application/json"]

  func patch(_ client: TestAPI.Client, _ ifMatch: String, _ body: String) async throws -> TestAPI.Answer {
    var headers = Self.json
    headers[.ifMatch] = ifMatch
    return try await client.send(
      .patch, "/mailboxes/1", as: "administrator", headers: headers, body: Array(body.utf8))
  }

  @Test("If-Match: 412 when the version is another, 409 when the body alone says it")
  func changed() async throws {
    try await api.with { client in
      let tag = try #require(try await client.post("/mailboxes", #"{"address":"a@example.com"}"#).headers[.eTag])
      // The content alone is no reason to refuse.
      api.store.change { $0.mailboxes[0].emailCount = 5 }
      let first = try await patch(client, tag, #"{"isActive":false}"#)
      #expect(first.status == 200)
      #expect(try await patch(client, "*", #"{"isActive":false}"#).status == 200)
      #expect(try await patch(client, "\"1-x\", W/\"1-x\"", #"{"version":null,"isActive":false}"#).status == 412)
      let late = try await patch(client, tag, #"{"isActive":true}"#)
      #expect(late.status == 412)
      #expect(try late.problem().code == "stale")
      #expect(try await client.patch("/mailboxes/1", #"{"isActive":true,"version":1}"#).status == 409)
    }
  }

  @Test("If-Match that no version can match, that contradicts the body, or that stands where there is no version")
  func wrong() async throws {
    try await api.with { client in
      _ = try await client.post("/mailboxes", #"{"address":"a@example.com"}"#)
      for field in ["W/\"1-x\"", "\"abc\"", "1", ""] {
        #expect(try await patch(client, field, #"{"isActive":false}"#).status == 412, "\(field)")
      }
      let both = try await patch(client, "\"1-x\"", #"{"isActive":false,"version":2}"#)
      #expect(try both.problem().errors?.first?.pointer == "/version")
      let several = try await patch(client, "\"1-x\", \"2-x\"", #"{"isActive":false}"#)
      #expect(try several.problem().errors?.first?.pointer == "header:If-Match")
      var headers = Self.json
      headers[.ifMatch] = "\"1-x\""
      let nowhere = try await client.post("/mailboxes/approve", headers: headers, #"{"ids":[1]}"#)
      #expect(try nowhere.problem().errors?.first?.pointer == "header:If-Match")
      #expect(api.store.state.withLock { $0.mailboxes[0].isActive })
    }
  }
}
