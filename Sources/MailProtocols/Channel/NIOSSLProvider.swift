import FoundationEssentials
import NIOCore
import NIOSSL
import NIOTLS
import PostriderCore
import Synchronization

/// TLS by swift-nio-ssl (BoringSSL).
final class NIOSSLProvider: TLSProvider {
  /// Contexts by CA bundle: the system's bundle takes tens of milliseconds to load, so it is loaded once.
  private let contexts = Mutex<[String?: NIOSSLContext]>([:])
  private static let maximumContexts = 256

  func secure(
    _ channel: any Channel, above transport: TransportHandler, _ requirement: TLSRequirement
  ) -> EventLoopFuture<TLSAnswer> {
    let promise = channel.eventLoop.makePromise(of: TLSAnswer.self)
    do {
      let context = try context(for: requirement.caCertificatesPEM)
      let isAddress = IPAddress(requirement.serverName) != nil
      // A literal address is checked against the connected address, which is that literal; it may not be sent as SNI.
      let handler = try NIOSSLClientHandler(
        context: context, serverHostname: isAddress ? nil : requirement.serverName)
      let watcher = HandshakeWatcher(
        promise: promise, handler: handler, transport: transport, requirement: requirement)
      transport.expectTLS()
      try channel.pipeline.syncOperations.addHandlers([handler, watcher], position: .after(transport))
    } catch {
      promise.succeed(
        TLSAnswer(facts: TLSFacts(), failure: error as? Failure ?? Self.diagnose(error, TLSFacts(), requirement)))
    }
    return promise.futureResult
  }

  private func context(for pem: String?) throws -> NIOSSLContext {
    if let known = contexts.withLock({ $0[pem] }) { return known }
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.minimumTLSVersion = .tlsv12
    configuration.certificateVerification = .fullVerification
    if let pem {
      guard let certificates = CACertificates.read(pem) else {
        throw Failure(.tlsUntrusted, context: "the profile's CA certificates cannot be read as PEM")
      }
      configuration.trustRoots = .certificates(certificates)
    }
    let context = try NIOSSLContext(configuration: configuration)
    return contexts.withLock { contexts in
      if let known = contexts[pem] { return known }
      // Profiles come and go; a full cache starts again rather than growing.
      if contexts.count >= Self.maximumContexts { contexts.removeAll() }
      contexts[pem] = context
      return context
    }
  }

  /// Sorts what the library reports. BoringSSL tells a bad date from a bad signature only to the server, in its alert,
  /// so the dates of the certificate decide between those two.
  static func diagnose(_ error: any Error, _ facts: TLSFacts, _ requirement: TLSRequirement) -> Failure {
    let name = requirement.serverName
    func failure(_ code: FailureCode, _ reason: String?) -> Failure {
      let seen = facts.summary
      let parts = [reason, seen.isEmpty ? nil : "the server showed \(seen)"].compactMap { $0 }
      return Failure(code, context: parts.isEmpty ? nil : parts.joined(separator: "; "))
    }
    if error is NotTLSError { return requirement.plainTextFailure }
    if error is WrongNameError { return failure(.tlsNameMismatch, "the certificate is not for \(name)") }
    if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname {
      return failure(.tlsNameMismatch, "the certificate is not for \(name)")
    }
    if let error = error as? NIOSSLExtraError,
      [.serverHostnameImpossibleToMatch, .invalidSNIHostname, .cannotUseIPAddressInSNI].contains(error)
    {
      return failure(.tlsNameMismatch, "no certificate can be for \(name)")
    }
    if let error = error as? NIOSSLError, [.cannotMatchULabel, .unableToValidateCertificate].contains(error) {
      return failure(.tlsNameMismatch, "the certificate is not for \(name)")
    }
    let text = String(describing: error)
    if text.contains("CERTIFICATE_VERIFY_FAILED") {
      let (code, reason) = verification(facts.certificate, name)
      return failure(code, reason)
    }
    if ["PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"].contains(where: { text.contains($0) }) {
      return failure(.tlsVersion, "TLS 1.2 or newer with \(name)")
    }
    if error is IOError || text.contains("EOF during handshake") {
      return failure(.tlsHandshake, "the server closed the connection during the handshake")
    }
    return failure(.tlsHandshake, Self.reason(in: text))
  }

  private static func verification(_ certificate: TLSFacts.Certificate?, _ name: String) -> (FailureCode, String) {
    let now = Date()
    if let certificate, certificate.notAfter < now {
      return (.tlsExpired, "the certificate of \(name) expired on \(TLSFacts.day(certificate.notAfter))")
    }
    if let certificate, certificate.notBefore > now {
      return (.tlsExpired, "the certificate of \(name) is not valid before \(TLSFacts.day(certificate.notBefore))")
    }
    return (.tlsUntrusted, "the certificate of \(name) does not lead to a trusted authority")
  }

  /// What the server's alert means, else the library's own word for it, such as `SSLV3_ALERT_DECODE_ERROR`.
  private static func reason(in text: String) -> String? {
    if text.contains("ALERT_HANDSHAKE_FAILURE") {
      return "the server has no cipher in common with us, or wants a client certificate"
    }
    if text.contains("UNRECOGNIZED_NAME") { return "the server does not know this host name" }
    return text.split { !($0.isLetter || $0.isNumber || $0 == "_") }.first { word in
      word.count > 8 && word.contains("_") && word.allSatisfy { $0.isUppercase || $0.isNumber || $0 == "_" }
    }.map { "TLS library: \($0)" }
  }
}

extension NIOSSLCertificate {
  /// The names that it is for. The library shows them only by an underscored call; its own check reads them the same way.
  fileprivate var identity: CertificateIdentity {
    var identity = CertificateIdentity(dnsNames: [], addresses: [])
    for name in _subjectAlternativeNames() {
      switch name.nameType {
      case .dnsName: identity.dnsNames.append(String(decoding: name.contents, as: UTF8.self))
      case .ipAddress: if let address = IPAddress(octets: Array(name.contents)) { identity.addresses.append(address) }
      default: break
      }
    }
    return identity
  }

  /// What people are shown of it.
  fileprivate var facts: TLSFacts.Certificate {
    let identity = identity
    return TLSFacts.Certificate(
      subject: Self.text(subjectName), issuer: Self.text(issuerName),
      names: identity.dnsNames + identity.addresses.map { "\($0)" },
      notBefore: Date(timeIntervalSince1970: Double(notValidBefore)),
      notAfter: Date(timeIntervalSince1970: Double(notValidAfter)))
  }

  /// `CN=mail.example.com, O=Example`; rarer attributes are left out.
  private static func text(_ name: [SSLCertificateName]) -> String {
    let labels: [(SSLCertificateNameType, String)] = [
      (.commonName, "CN"), (.organizationalUnit, "OU"), (.organization, "O"), (.country, "C"),
    ]
    return labels.flatMap { type, label in
      name.filter { $0.type == type }.prefix(2).map { "\(label)=\($0.value)" }
    }.joined(separator: ", ")
  }
}

/// The library's own check of the name passed, ours did not.
private struct WrongNameError: Error {}

/// Waits for the end of the handshake and then leaves the pipeline.
private final class HandshakeWatcher: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer

  private var promise: EventLoopPromise<TLSAnswer>?
  private let handler: NIOSSLClientHandler
  private let transport: TransportHandler
  private let requirement: TLSRequirement

  init(
    promise: EventLoopPromise<TLSAnswer>, handler: NIOSSLClientHandler, transport: TransportHandler,
    requirement: TLSRequirement
  ) {
    self.promise = promise
    self.handler = handler
    self.transport = transport
    self.requirement = requirement
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .handshakeCompleted? = event as? TLSUserEvent {
      guard let certificate = handler.peerCertificate, certificate.identity.isFor(requirement.serverName) else {
        return answer(NIOSSLProvider.diagnose(WrongNameError(), facts, requirement))
      }
      answer(nil)
      context.fireUserInboundEventTriggered(event)
      context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
      return
    }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    answer(NIOSSLProvider.diagnose(error, facts, requirement))
    context.fireErrorCaught(error)
  }

  func channelInactive(context: ChannelHandlerContext) {
    answer(Failure(.tlsHandshake, context: "the server closed the connection during the handshake"))
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    answer(Failure(.tlsHandshake, context: "the connection was closed during the handshake"))
  }

  /// What was seen so far.
  private var facts: TLSFacts {
    var facts = TLSFacts(transport.serverHello)
    facts.certificate = handler.peerCertificate?.facts
    return facts
  }

  private func answer(_ failure: Failure?) {
    guard let promise else { return }
    self.promise = nil
    promise.succeed(TLSAnswer(facts: facts, failure: failure))
  }
}
