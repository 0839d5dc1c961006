import NIOCore
import PostriderCore

/// Where a session goes and how long it waits.
public struct MailEndpoint: Hashable, Sendable {
  /// Which protocol is spoken there.
  public enum ProtocolKind: String, Hashable, Sendable, CaseIterable {
    /// POP3.
    case pop3
    /// SMTP.
    case smtp
  }

  /// Which protocol is spoken there.
  public var kind: ProtocolKind
  /// Host name or literal address, without brackets.
  public var host: String
  /// TCP port, 1…65535.
  public var port: Int
  /// How the connection is protected.
  public var tls: TLSMode
  /// Certificates (PEM) trusted instead of the system's; `nil` for the system's.
  public var caCertificatesPEM: String?
  /// For the whole of looking up, connecting and implicit TLS; again for the handshake after STARTTLS.
  public var connectTimeout: Duration
  /// For each answer; also the window in which the minimum rate has to be reached.
  public var answerTimeout: Duration
  /// For the answer to a message's final dot. Long, because a client that gives up there makes duplicates (RFC 1047,
  /// RFC 5321 section 4.5.3.2.6).
  public var finalAnswerTimeout: Duration
  /// The rate below which the transfer of a body, in either direction, is given up.
  public var minimumOctetsPerSecond: Int

  /// Describes an endpoint.
  public init(
    kind: ProtocolKind, host: String, port: Int, tls: TLSMode, caCertificatesPEM: String? = nil,
    connectTimeout: Duration = .seconds(30), answerTimeout: Duration = .seconds(30),
    finalAnswerTimeout: Duration = .seconds(600), minimumOctetsPerSecond: Int = 500
  ) {
    self.kind = kind
    self.host = host
    self.port = port
    self.tls = tls
    self.caCertificatesPEM = caCertificatesPEM
    self.connectTimeout = connectTimeout
    self.answerTimeout = answerTimeout
    self.finalAnswerTimeout = finalAnswerTimeout
    self.minimumOctetsPerSecond = minimumOctetsPerSecond
  }

  /// The endpoint of one direction of a profile.
  public init(_ server: ServerSettings, _ direction: Direction, caCertificatesPEM: String?, timeout: Duration) {
    self.init(
      kind: direction == .incoming ? .pop3 : .smtp, host: server.host, port: server.port, tls: server.tls,
      caCertificatesPEM: caCertificatesPEM, connectTimeout: timeout, answerTimeout: timeout)
  }

  var deadlines: SessionDeadlines {
    SessionDeadlines(
      answer: TimeAmount(answerTimeout), finalAnswer: TimeAmount(max(answerTimeout, finalAnswerTimeout)),
      handshake: TimeAmount(connectTimeout), minimumOctetsPerSecond: max(1, minimumOctetsPerSecond))
  }

  var requirement: TLSRequirement {
    TLSRequirement(serverName: host, caCertificatesPEM: caCertificatesPEM, isUpgrade: tls == .starttls)
  }
}
