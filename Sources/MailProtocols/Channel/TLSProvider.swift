import NIOCore
import PostriderCore

/// What a server has to prove before anything is sent to it.
struct TLSRequirement: Hashable, Sendable {
  /// The name that the certificate has to be for (RFC 7817): a host name, or a literal address for IP entries.
  var serverName: String
  /// Certificates (PEM) trusted instead of the system's.
  var caCertificatesPEM: String?
  /// Whether plain text came first; then octets that are no TLS were put in by somebody.
  var isUpgrade: Bool

  /// What plain text instead of a handshake means: somebody's injection after STARTTLS, else the wrong kind of port.
  var plainTextFailure: Failure {
    isUpgrade
      ? Failure(.tlsStartTLSInjection, context: "plain text where the TLS handshake was expected")
      : Failure(.tlsPortMismatch, context: "the port speaks plain text, the profile expects TLS")
  }
}

/// The seam to a TLS library: make this channel a verified TLS channel to this name.
///
/// Both NIOSSL and a handler over the system's libssl fit behind it; the same tests run against each.
protocol TLSProvider: Sendable {
  /// Puts TLS right above `transport` and begins the handshake as a client; on the channel's event loop.
  ///
  /// TLS 1.2 or newer, server name indication, full verification of chain, dates and name. The future does not fail: its
  /// answer holds what was seen and, where it did not pass, exactly what is wrong. The caller closes the channel.
  func secure(
    _ channel: any Channel, above transport: TransportHandler, _ requirement: TLSRequirement
  ) -> EventLoopFuture<TLSAnswer>
}

/// How a handshake ended.
struct TLSAnswer: Hashable, Sendable {
  /// What the server showed until then.
  var facts: TLSFacts
  /// Why nothing may be sent; `nil` when the channel is secure.
  var failure: Failure?
}
