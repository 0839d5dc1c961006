/// The codes of problem documents by their status, for the OpenAPI document. A test sees to it that no other is answered.
enum ProblemCatalog {
  /// A code and when it is answered.
  typealias Entry = (code: String, meaning: String)

  /// The statuses in order.
  static let all: [(status: Int, title: String, codes: [Entry])] = [
    (
      400, "Bad Request",
      [
        ("malformed-json", "the body is not JSON"), ("malformed-request", "the body could not be read to its end"),
      ]
    ),
    (
      401, "Unauthorized",
      [
        ("unauthorized", "no token, or one that is unknown, revoked or expired"),
        ("sign-in-refused", "the organization, the address or the password is wrong, or the account is locked"),
      ]
    ),
    (
      403, "Forbidden",
      [
        ("forbidden", "the token's role does not have the right"),
        ("insecure-channel", "a secret came over a connection that others can read"),
      ]
    ),
    (
      404, "Not Found",
      [
        ("not-found", "there is no such thing in the organization"),
        ("not-served", "the server was started without that part"),
      ]
    ),
    (408, "Request Timeout", [("timeout", "the body did not arrive in time")]),
    (409, "Conflict", conflicts),
    (412, "Precondition Failed", [("stale", "If-Match names a version that is no longer the present one")]),
    (413, "Content Too Large", [("too-large", "the body has more octets than it may")]),
    (415, "Unsupported Media Type", [("unsupported-media-type", "the body is not application/json")]),
    (
      422, "Unprocessable Content",
      [
        ("invalid", "values are not allowed; errors names each with a pointer to it"),
        ("idempotency-key-reused", "the Idempotency-Key was used for another request"),
      ]
    ),
    (429, "Too Many Requests", [("too-many-requests", "too many attempts to sign in from one address")]),
    (
      500, "Internal Server Error",
      [
        ("internal", "an error of Postrider's own; the log has it under requestID"),
        ("missing-key", "an encryption key is not in the key ring of the server"),
      ]
    ),
    (
      503, "Service Unavailable",
      [
        ("unavailable", "PostgreSQL or Redis cannot be reached, or the server is stopping"),
        ("timeout", "the request took too long; it may or may not have been carried out"),
        ("schema", "the database's schema does not fit the program"),
      ]
    ),
  ]

  private static let conflicts: [Entry] =
    [
      ("stale", "it was changed by somebody else in the meantime"),
      ("name-taken", "there is one of that name"),
      ("address-taken", "there is a mailbox of that address"),
      ("needs-new-tests", "the change asks for new tests, which has to be confirmed"),
      ("profile.no-delegation", "the profile's account opens one maildrop, which another mailbox uses"),
      ("profile.maildrop-taken", "another mailbox of the profile has the same user name"),
      ("oauth.not-configured", "the profile has no OAuth application"),
      ("oauth.no-consent", "the application needs no consent"),
      ("not-kept", "nothing is kept of the message"),
      ("not-cancelable", "the message is neither a draft nor waiting"),
      ("not-retryable", "the message is in no state from which it is tried again"),
      ("request-in-progress", "the same request, by its Idempotency-Key, is under way"),
      ("not-receiving", "the import was ended while its file arrived"),
      ("has-mailboxes", "the profile has mailboxes, which would lose it; that has to be confirmed"),
      ("no-default-profile", "the organization has no default profile to apply"),
      ("needs-confirmation", "it deletes for good, which has to be confirmed"),
      ("not-a-session", "the token was made by a person and is revoked, not signed out"),
      ("in-use", "something still belongs to it, which the message names"),
      ("yourself", "administrators do not take their own rights"),
      ("last-administrator", "it is the last active administrator"),
      ("uncertain", "the message may have arrived; say resendUncertain"),
    ] + doesNotSend

  /// Why a mailbox does not send.
  private static let doesNotSend: [Entry] = [
    ("method-none", "the mailbox's method is none"), ("mailbox-inactive", "the mailbox is inactive"),
    ("no-profile", "the mailbox has no server profile"), ("profile-inactive", "its server profile is inactive"),
    ("not-approved", "the mailbox waits for approval"), ("not-tested", "the mailbox is not tested"),
    ("disabled", "a failure disabled the mailbox"),
  ]
}
