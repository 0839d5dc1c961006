import FoundationEssentials
import PostriderCore

/// What a token endpoint answered (RFC 6749 sections 5.1 and 5.2), sorted once.
enum TokenAnswer {
  /// A token lives at least and at most so long, whatever the server says.
  private static let lives: ClosedRange<Double> = 60...7_776_000
  /// Where the server does not say (RFC 6749 section 5.1 only recommends it).
  private static let assumedLife = 1_800.0

  private struct Success: Decodable {
    var accessToken: String
    var refreshToken: String?
    var scope: String?
    var life: Double?

    enum CodingKeys: String, CodingKey {
      case accessToken = "access_token"
      case refreshToken = "refresh_token"
      case scope
      case life = "expires_in"
    }

    init(from decoder: any Decoder) throws {
      let fields = try decoder.container(keyedBy: CodingKeys.self)
      accessToken = try fields.decode(String.self, forKey: .accessToken)
      refreshToken = try fields.decodeIfPresent(String.self, forKey: .refreshToken)
      scope = try fields.decodeIfPresent(String.self, forKey: .scope)
      // Some write the number as a text, and a text may be "nan", of which no duration can be made.
      let number =
        (try? fields.decode(Double.self, forKey: .life))
        ?? (try? fields.decode(String.self, forKey: .life)).flatMap { Double($0) }
      life = number.flatMap { $0.isFinite ? $0 : nil }
    }
  }

  private struct Refusal: Decodable {
    var error: String?
    var description: String?

    enum CodingKeys: String, CodingKey {
      case error
      case description = "error_description"
    }

    init(from decoder: any Decoder) throws {
      let fields = try decoder.container(keyedBy: CodingKeys.self)
      // A field of another kind says nothing.
      error = try? fields.decode(String.self, forKey: .error)
      description = try? fields.decode(String.self, forKey: .description)
    }
  }

  /// The tokens, or why there are none.
  ///
  /// - Parameter secrets: what was sent and must not come back in a server's words.
  static func read(_ answer: WebClient.Answer, host: String, secrets: [Secret]) throws(Failure) -> IssuedTokens {
    let data = Data(answer.body)
    if answer.status == 200 {
      guard !answer.isCut, let success = try? JSONDecoder().decode(Success.self, from: data),
        isToken(success.accessToken), success.refreshToken.map(isToken) ?? true
      else { throw Failure(.oauthTemporary, context: "\(host) answered without a token that can be read") }
      let life = min(max(success.life ?? assumedLife, lives.lowerBound), lives.upperBound)
      return IssuedTokens(
        accessToken: Secret(success.accessToken), refreshToken: success.refreshToken.map { Secret($0) },
        life: .seconds(life), scopes: success.scope.map { $0.split(separator: " ").map(String.init) })
    }
    let refusal = try? JSONDecoder().decode(Refusal.self, from: data)
    throw failure(answer, refusal?.error, refusal?.description, host: host, secrets: secrets)
  }

  /// RFC 6750 section 2.1, with room for what providers do; it goes into a header and into a login.
  private static func isToken(_ text: String) -> Bool {
    (1...16_384).contains(text.utf8.count) && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
  }

  private static func failure(
    _ answer: WebClient.Answer, _ error: String?, _ description: String?, host: String, secrets: [Secret]
  ) -> Failure {
    let said = [error, description].compactMap { $0 }.joined(separator: ": ")
    return Failure(
      code(answer.status, error, description ?? ""),
      serverWords: said.isEmpty ? nil : redacted(said, secrets), context: "\(host) answered \(answer.status)",
      retryAfterSeconds: answer.retryAfterSeconds)
  }

  private static func code(_ status: Int, _ error: String?, _ description: String) -> FailureCode {
    if status == 429 || status >= 500 { return .oauthTemporary }
    if (300..<400).contains(status) { return .oauthClient }
    let microsoft = microsoftCode(description)
    switch error?.lowercased() {
    // Microsoft: the client asks again and again.
    case _ where microsoft == 50_196: return .oauthTemporary
    // Microsoft: the application's secret is wrong or over, or there is no such application.
    case _ where [7_000_215, 7_000_222, 700_016, 7_000_218].contains(microsoft): return .oauthClient
    // Google: the assertion itself, which is the application's.
    case "invalid_grant"? where description.hasPrefix("Invalid JWT"): return .oauthClient
    case "invalid_grant"?, "interaction_required"?, "consent_required"?, "login_required"?, "access_denied"?:
      return .oauthGrantExpired
    case "invalid_client"?, "unauthorized_client"?, "invalid_request"?, "invalid_scope"?, "unsupported_grant_type"?,
      "invalid_target"?:
      return .oauthClient
    case "temporarily_unavailable"?, "server_error"?, "slow_down"?, nil: return .oauthTemporary
    default: return .oauthClient
    }
  }

  /// `50173` of `AADSTS50173: …`.
  private static func microsoftCode(_ description: String) -> Int {
    guard let mark = description.firstRange(of: "AADSTS") else { return 0 }
    return Int(description[mark.upperBound...].prefix { $0.isNumber }) ?? 0
  }

  /// A server's words without what it was told, as it is or percent-encoded.
  static func redacted(_ words: String, _ secrets: [Secret]) -> String {
    var text = words
    for secret in secrets where secret.revealed.utf8.count >= 4 {
      let forms = Set([secret.revealed, String(WebURL.form([("", secret.revealed)]).dropFirst())])
      for form in forms { text = text.replacing(form, with: "«redacted»") }
    }
    return text
  }
}
