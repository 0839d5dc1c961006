import FoundationEssentials
import PostriderCore

/// Asks a token endpoint for tokens (RFC 6749). The client's secret goes in the form (section 2.3.1), which is what Google
/// and Microsoft expect.
struct TokenEndpoint: Sendable {
  let web: WebClient

  /// Changes the code of a consent into tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5).
  func exchange(
    code: Secret, verifier: Secret, redirectURL: String, _ client: TokenClient
  ) async throws -> IssuedTokens {
    try await ask(
      client,
      [
        ("grant_type", "authorization_code"), ("code", code.revealed), ("redirect_uri", redirectURL),
        ("code_verifier", verifier.revealed),
      ], secrets: [code, verifier])
  }

  /// Gets the next access token of a grant.
  func renew(_ lease: RefreshLease) async throws -> IssuedTokens {
    let client = lease.client
    switch client.flow {
    case .authorizationCode:
      guard let token = lease.refreshToken else { throw Failure(.oauthNotConnected) }
      return try await ask(
        client, [("grant_type", "refresh_token"), ("refresh_token", token.revealed)], secrets: [token])
    case .serviceAccount:
      guard let key = client.secret else { throw Failure(.oauthClient, context: "no private key is stored") }
      let assertion = try ServiceAssertion(
        issuer: client.clientID, subject: lease.subject, audience: client.tokenURL.description, scopes: client.scopes
      ).signed(with: key)
      return try await ask(
        client,
        [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.revealed)],
        secrets: [assertion])
    case .clientCredentials:
      return try await ask(
        client, [("grant_type", "client_credentials"), ("scope", client.scopes.joined(separator: " "))], secrets: [])
    }
  }

  private func ask(
    _ client: TokenClient, _ fields: [(String, String)], secrets: [Secret]
  ) async throws -> IssuedTokens {
    var form = fields
    var hidden = secrets
    if client.flow != .serviceAccount {
      form.append(("client_id", client.clientID))
      if let secret = client.secret {
        form.append(("client_secret", secret.revealed))
        hidden.append(secret)
      }
    }
    let answer: WebClient.Answer
    do {
      answer = try await web.send(
        WebClient.Request(
          client.tokenURL, body: Array(WebURL.form(form).utf8),
          headers: [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]))
    } catch let failure as Failure {
      // The policy's answer will be the same tomorrow; everything else is the server's or the network's.
      if failure.code == .egressDenied { throw failure }
      throw Failure(
        .oauthTemporary, context: "\(failure.code.rawValue): \(failure.context ?? client.tokenURL.host)")
    }
    return try TokenAnswer.read(answer, host: client.tokenURL.host, secrets: hidden)
  }

  /// Tells the provider that a token is not used any more (RFC 7009). Returns why it was not told; `nil` when it was.
  func revoke(_ token: Secret, at url: WebURL) async -> String? {
    do {
      let answer = try await web.send(
        WebClient.Request(
          url, body: Array(WebURL.form([("token", token.revealed), ("token_type_hint", "refresh_token")]).utf8),
          headers: [("Content-Type", "application/x-www-form-urlencoded")], timeout: .seconds(10)))
      return answer.status == 200 ? nil : "\(url.host) answered \(answer.status)"
    } catch let failure as Failure {
      return failure.context ?? failure.code.summary
    } catch {
      return "it was interrupted"
    }
  }
}
