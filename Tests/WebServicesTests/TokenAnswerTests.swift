import Foundation
import PostriderCore
import Testing

@testable import WebServices

@Suite("Answers of token endpoints (errors table)")
struct TokenAnswerTests {
  private func read(_ status: Int, _ body: String, retryAfter: Int? = nil) -> Result<IssuedTokens, Failure> {
    let answer = WebClient.Answer(status: status, body: Array(body.utf8), isCut: false, retryAfterSeconds: retryAfter)
    do throws(Failure) {
      return .success(try TokenAnswer.read(answer, host: "login.example.com", secrets: [Secret("s3cret&x")]))
    } catch {
      return .failure(error)
    }
  }

  private static let rows: [(Int, String, FailureCode)] = [
    (400, #"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#, .oauthGrantExpired),
    (
      400, #"{"error":"invalid_grant","error_description":"AADSTS70008: The refresh token has expired"}"#,
      .oauthGrantExpired
    ),
    (400, #"{"error":"interaction_required","error_description":"AADSTS50076: MFA"}"#, .oauthGrantExpired),
    (400, #"{"error":"invalid_grant","error_description":"AADSTS65001: no consent"}"#, .oauthGrantExpired),
    (400, #"{"error":"invalid_grant","error_description":"AADSTS50196: client request loop"}"#, .oauthTemporary),
    (401, #"{"error":"invalid_client","error_description":"AADSTS7000222: secret expired"}"#, .oauthClient),
    (400, #"{"error":"unauthorized_client","error_description":"AADSTS700016: not found"}"#, .oauthClient),
    (400, #"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#, .oauthClient),
    (400, #"{"error":"invalid_scope"}"#, .oauthClient), (302, "", .oauthClient),
    (429, #"{"error":"invalid_grant"}"#, .oauthTemporary), (500, "", .oauthTemporary), (503, "<html>", .oauthTemporary),
    (400, "<html>a proxy</html>", .oauthTemporary), (200, "{}", .oauthTemporary), (200, "not JSON", .oauthTemporary),
    (200, #"{"access_token":"a b"}"#, .oauthTemporary), (200, #"{"access_token":""}"#, .oauthTemporary),
    (400, #"{"error":7}"#, .oauthTemporary),
  ]

  @Test("each answer has its code", arguments: rows)
  func codes(_ row: (status: Int, body: String, code: FailureCode)) {
    guard case .failure(let failure) = read(row.status, row.body) else {
      Issue.record("\(row.body) gave tokens")
      return
    }
    #expect(failure.code == row.code, "\(failure)")
  }

  @Test("tokens with and without what is optional")
  func tokens() throws {
    let full = try read(
      200, #"{"access_token":"at","expires_in":"3599","refresh_token":"rt","scope":"a b","token_type":"Bearer"}"#
    ).get()
    #expect(full.life == .seconds(3_599) && full.scopes == ["a", "b"] && full.refreshToken == Secret("rt"))
    let bare = try read(200, #"{"access_token":"at"}"#).get()
    #expect(bare.life == .seconds(1_800) && bare.scopes == nil && bare.refreshToken == nil)
    #expect(try read(200, #"{"access_token":"at","expires_in":1e300}"#).get().life == .seconds(7_776_000))
    #expect(try read(200, #"{"access_token":"at","expires_in":-5}"#).get().life == .seconds(60))
    for number in ["nan", "-nan", "inf", "-infinity", "1e999", "soon"] {
      let odd = try read(200, #"{"access_token":"at","expires_in":"\#(number)"}"#).get()
      #expect(odd.life == .seconds(1_800), "\(number)")
    }
  }

  @Test("a server's words are shown without what it was told, and harmless")
  func words() {
    guard
      case .failure(let failure) = read(
        400, #"{"error":"invalid_grant","error_description":"s3cret&x or s3cret%26x \u001b[2J"}"#, retryAfter: 7)
    else {
      Issue.record("tokens")
      return
    }
    #expect(
      failure.serverWords == "invalid_grant: «redacted» or «redacted» \\u{1b}[2J" && failure.retryAfterSeconds == 7)
  }
}
