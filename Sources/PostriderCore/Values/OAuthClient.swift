import FoundationEssentials

/// How the access tokens of a profile's mailboxes come about.
public enum OAuthFlow: String, Hashable, Sendable, Codable, CaseIterable {
  /// The owner of each mailbox consents in the browser (RFC 6749 section 4.1, with PKCE, RFC 7636).
  case authorizationCode = "authorization-code"
  /// A service account speaks for each mailbox with a signed assertion (RFC 7523); Google's domain-wide delegation.
  case serviceAccount = "service-account"
  /// The application speaks for itself (RFC 6749 section 4.4); Microsoft's app-only access. One token for all mailboxes.
  case clientCredentials = "client-credentials"

  /// Whether tokens are got without anybody's consent.
  public var isUnattended: Bool { self != .authorizationCode }
}

/// The application that a profile's provider knows Postrider as, as a person gives it.
public struct OAuthClientDraft: Sendable, Decodable {
  /// `authorization-code` when left out.
  public var flow: OAuthFlow?
  /// The client id; of a service account its address (`client_email`).
  public var clientID: String
  /// The client secret; write-only. Left out: the stored one stays.
  public var clientSecret: Secret?
  /// The private key of a service account in PEM (PKCS#8 or PKCS#1); write-only. Left out: the stored one stays.
  public var privateKey: Secret?
  /// Microsoft's directory: a GUID or a domain; `organizations` when left out, which client credentials cannot use.
  public var tenant: String?
  /// Where people consent; may hold parameters of the provider's own. The provider's when left out.
  public var authorizationURL: String?
  /// Where tokens come from; the provider's when left out.
  public var tokenURL: String?
  /// Where a token is taken back (RFC 7009); the provider's, if it has one, when left out.
  public var revocationURL: String?
  /// What is asked for; what the profile's directions need when left out.
  public var scopes: [String]?

  /// A draft with the required field.
  public init(
    flow: OAuthFlow? = nil, clientID: String, clientSecret: Secret? = nil, privateKey: Secret? = nil,
    tenant: String? = nil, authorizationURL: String? = nil, tokenURL: String? = nil, revocationURL: String? = nil,
    scopes: [String]? = nil
  ) {
    self.flow = flow
    self.clientID = clientID
    self.clientSecret = clientSecret
    self.privateKey = privateKey
    self.tenant = tenant
    self.authorizationURL = authorizationURL
    self.tokenURL = tokenURL
    self.revocationURL = revocationURL
    self.scopes = scopes
  }
}

/// The application of a profile as it is stored, without its secret.
public struct OAuthClient: Hashable, Sendable, Codable {
  /// The profile.
  public var profileID: ProfileID
  /// How tokens come about.
  public var flow: OAuthFlow
  /// The client id.
  public var clientID: String
  /// Whether a client secret or private key is stored. It is never read back.
  public var secretSet: Bool
  /// Where people consent; only for ``OAuthFlow/authorizationCode``.
  public var authorizationURL: String?
  /// Where tokens come from.
  public var tokenURL: String
  /// Where a token is taken back.
  public var revocationURL: String?
  /// What is asked for.
  public var scopes: [String]

  /// Describes a client.
  public init(
    profileID: ProfileID, flow: OAuthFlow, clientID: String, secretSet: Bool, authorizationURL: String?,
    tokenURL: String, revocationURL: String?, scopes: [String]
  ) {
    self.profileID = profileID
    self.flow = flow
    self.clientID = clientID
    self.secretSet = secretSet
    self.authorizationURL = authorizationURL
    self.tokenURL = tokenURL
    self.revocationURL = revocationURL
    self.scopes = scopes
  }

  /// Those of the scopes asked for that a provider did not grant. `offline_access` and the words of OpenID are left out:
  /// providers do not name them in their answers.
  public static func missing(_ granted: [String], of asked: [String]) -> [String] {
    let silent: Set<String> = ["offline_access", "openid", "profile", "email"]
    let granted = Set(granted.map { $0.lowercased() })
    return asked.filter { !silent.contains($0) && !$0.hasSuffix("/.default") && !granted.contains($0.lowercased()) }
  }
}

/// A checked application with everything filled in, ready to be stored.
public struct ResolvedOAuthClient: Sendable {
  /// How tokens come about.
  public var flow: OAuthFlow
  /// The client id.
  public var clientID: String
  /// Client secret or private key; `nil`: the stored one stays.
  public var secret: Secret?
  /// Where people consent.
  public var authorizationURL: WebURL?
  /// Where tokens come from.
  public var tokenURL: WebURL
  /// Where a token is taken back.
  public var revocationURL: WebURL?
  /// What is asked for.
  public var scopes: [String]
}
