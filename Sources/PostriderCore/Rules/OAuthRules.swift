/// What a profile's OAuth application must be like, and what fills itself in (features P3, P5, P18).
public enum OAuthRules {
  /// Fills in what was left out and checks everything; throws ``StoreError/invalid(_:)`` with every wrong field.
  public static func resolve(
    _ draft: OAuthClientDraft, of type: ProfileType
  ) throws(StoreError) -> ResolvedOAuthClient {
    var problems = FieldProblems()
    let flow = draft.flow ?? .authorizationCode
    problems.check(draft.clientID, at: "/clientID", maximum: 500, minimum: 1)
    problems.check(draft.clientSecret?.revealed ?? "", at: "/clientSecret", maximum: 2_000)
    problems.check(draft.privateKey?.revealed ?? "", at: "/privateKey", maximum: 16_384, allowsNewlines: true)
    checkSecrets(draft, flow, &problems)
    let tenant = tenant(draft, flow, type, &problems)
    let preset = preset(type, flow, tenant: tenant)
    func url(_ text: String?, _ fallback: String?, _ name: String, required: Bool) -> WebURL? {
      guard let text = text ?? fallback else {
        if required { problems.add("/\(name)", "required", "is required for profiles of type \(type.rawValue)") }
        return nil
      }
      return WebURL.read(text, at: "/\(name)", &problems)
    }
    let needsConsent = flow == .authorizationCode
    let authorization = url(
      needsConsent ? draft.authorizationURL : nil, needsConsent ? preset.authorization : nil, "authorizationURL",
      required: needsConsent)
    let token = url(draft.tokenURL, preset.token, "tokenURL", required: true)
    let revocation = url(draft.revocationURL, preset.revocation, "revocationURL", required: false)
    let scopes = draft.scopes ?? preset.scopes
    check(scopes, flow, &problems)
    try problems.throwIfAny()
    guard let token else { throw .invalid([FieldProblem("/tokenURL", "required", "is required")]) }
    return ResolvedOAuthClient(
      flow: flow, clientID: draft.clientID, secret: flow == .serviceAccount ? draft.privateKey : draft.clientSecret,
      authorizationURL: authorization, tokenURL: token, revocationURL: revocation, scopes: scopes)
  }

  private static func checkSecrets(_ draft: OAuthClientDraft, _ flow: OAuthFlow, _ problems: inout FieldProblems) {
    if flow == .serviceAccount {
      if draft.clientSecret != nil {
        problems.add("/clientSecret", "not-allowed", "a service account signs with `privateKey`")
      }
      if let key = draft.privateKey?.revealed, !key.contains("PRIVATE KEY-----") {
        problems.add("/privateKey", "not-pem", "must be a private key in PEM form")
      }
    } else if draft.privateKey != nil {
      problems.add("/privateKey", "not-allowed", "is only for the flow service-account")
    }
  }

  private static func check(_ scopes: [String], _ flow: OAuthFlow, _ problems: inout FieldProblems) {
    if scopes.count > 50 { problems.add("/scopes", "out-of-range", "must have at most 50 items") }
    for (index, scope) in scopes.enumerated() {
      // RFC 6749 section 3.3: one word, without quotes and backslashes.
      let isWord =
        (1...500).contains(scope.utf8.count)
        && scope.utf8.allSatisfy {
          (0x21...0x7E).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\")
        }
      if !isWord { problems.add("/scopes/\(index)", "not-a-scope", "must be one word of ASCII letters and signs") }
    }
  }

  private static func tenant(
    _ draft: OAuthClientDraft, _ flow: OAuthFlow, _ type: ProfileType, _ problems: inout FieldProblems
  ) -> String {
    guard let tenant = draft.tenant else {
      if type == .microsoft365 && flow == .clientCredentials && draft.tokenURL == nil {
        problems.add("/tenant", "required", "names the directory: a GUID or a domain such as example.onmicrosoft.com")
      }
      return "organizations"
    }
    if type != .microsoft365 { problems.add("/tenant", "not-allowed", "is only for profiles of type microsoft365") }
    if !HostRules.isHostName(tenant) || !tenant.utf8.allSatisfy({ $0 < 0x80 }) {
      problems.add("/tenant", "not-a-tenant", "must be a GUID or a domain")
    }
    return tenant
  }

  private struct Preset {
    var authorization: String?
    var token: String?
    var revocation: String?
    var scopes: [String] = []
  }

  private static func preset(_ type: ProfileType, _ flow: OAuthFlow, tenant: String) -> Preset {
    switch type {
    case .gmail:
      // Google hands out a refresh token only for offline access, and again only after another consent.
      Preset(
        authorization: "https://accounts.google.com/o/oauth2/v2/auth?access_type=offline&prompt=consent",
        token: "https://oauth2.googleapis.com/token", revocation: "https://oauth2.googleapis.com/revoke",
        scopes: ["https://mail.google.com/"])
    case .microsoft365:
      Preset(
        authorization: "https://login.microsoftonline.com/\(tenant)/oauth2/v2.0/authorize",
        token: "https://login.microsoftonline.com/\(tenant)/oauth2/v2.0/token",
        scopes: flow == .clientCredentials
          ? ["https://outlook.office365.com/.default"]
          : [
            "https://outlook.office.com/POP.AccessAsUser.All", "https://outlook.office.com/SMTP.Send", "offline_access",
          ])
    case .pop3SMTP: Preset()
    }
  }
}
