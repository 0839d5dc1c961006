import ArgumentParser
import PostriderCore

/// Where the servers of a profile are, and how to log in there.
struct ProfileServerOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The POP3 server.", discussion: "Required for a new pop3-smtp profile. Example: --incoming-host pop.example.com",
      valueName: "host"))
  var incomingHost: String?

  @Option(
    help: ArgumentHelp(
      "Its port, 1 to 65535.", discussion: "A new profile: 995 with implicit TLS, else 110.", valueName: "port"))
  var incomingPort: Int?

  @Option(
    help: ArgumentHelp(
      "How the connection is protected: implicit, starttls or none.",
      discussion: "A new profile: implicit. None needs the deployment property allowNonTLSMail.", valueName: "mode"))
  var incomingTLS: TLSMode?

  @Option(
    help: ArgumentHelp(
      "The SMTP server.", discussion: "Required for a new pop3-smtp profile. Example: --outgoing-host smtp.example.com",
      valueName: "host"))
  var outgoingHost: String?

  @Option(
    help: ArgumentHelp(
      "Its port, 1 to 65535.", discussion: "A new profile: 465 with implicit TLS, else 587.", valueName: "port"))
  var outgoingPort: Int?

  @Option(
    help: ArgumentHelp(
      "How the connection is protected: implicit, starttls or none.", discussion: "A new profile: implicit.",
      valueName: "mode"))
  var outgoingTLS: TLSMode?

  @Option(
    help: ArgumentHelp(
      "Whose credentials open a session: mailbox, profile, oauth, or integrated (outgoing only).",
      discussion: """
        mailbox: those given for each mailbox. profile: one account with rights on all of them; give --user-name and \
        a password. A new profile: mailbox, or oauth for gmail and microsoft365.
        """, valueName: "source"))
  var credentials: CredentialSource?

  @Option(
    help: ArgumentHelp(
      "The same for sending, where it differs.", discussion: "Default: as --credentials.", valueName: "source"))
  var outgoingCredentials: CredentialSource?

  @Option(
    help: ArgumentHelp(
      "The login mechanism: auto, plain, login, cram-md5, scram-sha-1, scram-sha-256, xoauth2, oauthbearer, ntlm or "
        + "gssapi.",
      discussion: """
        A new profile: auto, the strongest one the server offers that goes with the credentials; never ntlm, which is weak, and \
        gssapi only with credentials integrated. With a template in --login-as: plain.
        """, valueName: "mechanism"))
  var mechanism: AuthenticationMechanism?

  @Option(
    help: ArgumentHelp(
      "The same for sending, where it differs.", discussion: "Default: as --mechanism.", valueName: "mechanism"))
  var outgoingMechanism: AuthenticationMechanism?

  @Option(
    help: ArgumentHelp(
      "The profile's own account, with --credentials profile; at most 250 characters.", valueName: "name"))
  var userName: String?

  @Option(
    help: ArgumentHelp(
      "How that account opens the maildrop of each mailbox: authzid, or a login name with {mailbox} and {user}.",
      discussion: """
        Without it the account opens its own maildrop, and only one mailbox can use the profile. {mailbox} is the user \
        name of the mailbox, else its address; {user} is --user-name. Example, for Dovecot's master users: \
        --login-as '{mailbox}*{user}'
        """, valueName: "how"))
  var loginAs: String?

  /// Whether nothing was given.
  var isEmpty: Bool {
    [incomingHost, outgoingHost, userName, loginAs].allSatisfy { $0 == nil }
      && [incomingPort, outgoingPort].allSatisfy { $0 == nil } && [incomingTLS, outgoingTLS].allSatisfy { $0 == nil }
      && [credentials, outgoingCredentials].allSatisfy { $0 == nil }
      && [mechanism, outgoingMechanism].allSatisfy { $0 == nil }
  }
}
