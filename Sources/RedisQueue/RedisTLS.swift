import FoundationEssentials
import NIOCore
import NIOSSL
import PostriderCore

/// How TLS connections to Redis are verified, and what they show of themselves.
///
/// The files are read again for each connection, so renewed certificates need no restart.
public struct RedisTLSSettings: Hashable, Sendable {
  /// Certificates (PEM) trusted instead of the system's.
  public var caFile: String?
  /// The client's certificate, followed by its chain (PEM); with ``keyFile``.
  public var certificateFile: String?
  /// The client's private key (PEM, not encrypted).
  public var keyFile: String?
  /// The name that every server's certificate must be for, instead of the name or address that is connected to. For
  /// servers found by address, as Sentinel and Cluster tell them.
  public var serverName: String?

  /// Describes the settings; nothing given means the system's authorities and no client certificate.
  public init(
    caFile: String? = nil, certificateFile: String? = nil, keyFile: String? = nil, serverName: String? = nil
  ) {
    self.caFile = caFile
    self.certificateFile = certificateFile
    self.keyFile = keyFile
    self.serverName = serverName
  }

  /// Whether anything is set.
  var isEmpty: Bool { self == RedisTLSSettings() }

  /// Reads the files.
  ///
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` naming the file that is missing or wrong.
  func context() throws(JobQueueError) -> NIOSSLContext {
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.minimumTLSVersion = .tlsv12
    configuration.certificateVerification = .fullVerification
    if let caFile {
      configuration.trustRoots = .certificates(try Self.certificates(in: caFile, "the CA file"))
    }
    switch (certificateFile, keyFile) {
    case (nil, nil): break
    case (let certificateFile?, let keyFile?):
      configuration.certificateChain = try Self.certificates(in: certificateFile, "the client certificate file")
        .map { .certificate($0) }
      do {
        configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: keyFile, format: .pem))
      } catch {
        throw .misconfigured(reason: "the client key file \(keyFile) cannot be read as an unencrypted PEM key")
      }
    default: throw .misconfigured(reason: "a client certificate needs both its file and its key's file")
    }
    do {
      return try NIOSSLContext(configuration: configuration)
    } catch {
      throw .misconfigured(reason: "the client certificate and its key do not belong together")
    }
  }

  private static func certificates(in file: String, _ what: String) throws(JobQueueError) -> [NIOSSLCertificate] {
    // Both a missing file and one that is no PEM give none; the text says both.
    guard let certificates = try? NIOSSLCertificate.fromPEMFile(file), !certificates.isEmpty else {
      throw .misconfigured(reason: "\(what) \(file) cannot be read as PEM certificates")
    }
    return certificates
  }

  /// The name that a server at this host must prove.
  func name(of host: String) -> String { serverName ?? host }

  /// The handler that makes a channel to a server of this name a verified TLS channel.
  static func handler(_ context: NIOSSLContext, name: String) throws(JobQueueError) -> NIOSSLClientHandler {
    do {
      // A literal address is checked against the connected address, which is that literal; it may not be sent as SNI.
      let isAddress = (try? SocketAddress(ipAddress: name, port: 0)) != nil
      return try NIOSSLClientHandler(context: context, serverHostname: isAddress ? nil : name)
    } catch {
      throw .misconfigured(reason: "no certificate can be for the server name \(name)")
    }
  }

  /// Whether a certificate, already verified, is for this name. The library also takes one that is for the address only.
  static func isFor(_ name: String, _ certificate: NIOSSLCertificate?) -> Bool {
    if (try? SocketAddress(ipAddress: name, port: 0)) != nil { return true }
    let wanted = name.lowercased().split(separator: ".", omittingEmptySubsequences: false)
    return certificate?._subjectAlternativeNames().contains { entry in
      guard entry.nameType == .dnsName else { return false }
      let text = String(decoding: entry.contents, as: UTF8.self).lowercased()
      let labels = text.split(separator: ".", omittingEmptySubsequences: false)
      // A star stands for one whole label, the first (RFC 6125 section 6.4.3).
      return labels == wanted
        || (labels.first == "*" && labels.count > 2 && labels.dropFirst() == wanted.dropFirst() && wanted.count > 2)
    } ?? false
  }

  /// Says what a TLS error means, and whether only another configuration helps.
  static func failure(_ error: any Error, certificate: NIOSSLCertificate?, name: String) -> RedisConnectionFailure {
    if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname {
      return .untrusted("the server's certificate is not for \(name)")
    }
    if let error = error as? NIOSSLError, [.cannotMatchULabel, .unableToValidateCertificate].contains(error) {
      return .untrusted("the server's certificate is not for \(name)")
    }
    let text = String(describing: error)
    func says(_ words: String...) -> Bool { words.contains { text.contains($0) } }
    if says("CERTIFICATE_VERIFY_FAILED") {
      let now = Int(Date().timeIntervalSince1970)
      if let certificate, Int(certificate.notValidAfter) < now {
        return .untrusted("the certificate of \(name) has expired")
      }
      if let certificate, Int(certificate.notValidBefore) > now {
        return .untrusted("the certificate of \(name) is not valid yet")
      }
      return .untrusted("the certificate of \(name) does not lead to a trusted authority; is the CA file right?")
    }
    if says("CERTIFICATE_REQUIRED") {
      return .untrusted("the server requires a client certificate")
    }
    if says("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_EXPIRED", "ALERT_CERTIFICATE_UNKNOWN") {
      return .untrusted("the server does not accept our client certificate")
    }
    if says("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST") {
      return .untrusted("the port of \(name) speaks plain text, not TLS; use redis:// or its TLS port")
    }
    return .tls("the TLS connection to \(name) failed: \(Self.reason(in: text) ?? "the server closed it")")
  }

  /// The library's own word for it, such as `SSLV3_ALERT_HANDSHAKE_FAILURE`.
  private static func reason(in text: String) -> String? {
    let words: [Substring] = text.split { character in !(character.isLetter || character.isNumber || character == "_") }
    let word = words.first { word in
      word.count > 8 && word.contains("_") && word.allSatisfy { $0.isUppercase || $0.isNumber || $0 == "_" }
    }
    return word.map(String.init)
  }
}
