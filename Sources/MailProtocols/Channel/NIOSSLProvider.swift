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
  ) -> EventLoopFuture<String> {
    let promise = channel.eventLoop.makePromise(of: String.self)
    do {
      let context = try context(for: requirement.caCertificatesPEM)
      let isAddress = IPAddress(requirement.serverName) != nil
      // A literal address is checked against the connected address, which is that literal; it may not be sent as SNI.
      let handler = try NIOSSLClientHandler(
        context: context, serverHostname: isAddress ? nil : requirement.serverName)
      let watcher = HandshakeWatcher(promise: promise, handler: handler, requirement: requirement)
      transport.expectTLS()
      try channel.pipeline.syncOperations.addHandlers([handler, watcher], position: .after(transport))
    } catch let failure as Failure {
      promise.fail(failure)
    } catch {
      promise.fail(Self.diagnose(error, certificate: nil, requirement))
    }
    return promise.futureResult
  }

  private func context(for pem: String?) throws -> NIOSSLContext {
    if let known = contexts.withLock({ $0[pem] }) { return known }
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.minimumTLSVersion = .tlsv12
    configuration.certificateVerification = .fullVerification
    if let pem {
      let certificates = (try? NIOSSLCertificate.fromPEMBytes(Array(pem.utf8))) ?? []
      guard !certificates.isEmpty else {
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
  static func diagnose(_ error: any Error, certificate: NIOSSLCertificate?, _ requirement: TLSRequirement) -> Failure {
    let name = requirement.serverName
    if error is NotTLSError { return requirement.plainTextFailure }
    if let error = error as? NIOSSLExtraError, error == .failedToValidateHostname {
      return Failure(.tlsNameMismatch, context: "the certificate is not for \(name)")
    }
    if let error = error as? NIOSSLExtraError,
      [.serverHostnameImpossibleToMatch, .invalidSNIHostname, .cannotUseIPAddressInSNI].contains(error)
    {
      return Failure(.tlsNameMismatch, context: "no certificate can be for \(name)")
    }
    if let error = error as? NIOSSLError, [.cannotMatchULabel, .unableToValidateCertificate].contains(error) {
      return Failure(.tlsNameMismatch, context: "the certificate is not for \(name)")
    }
    let text = String(describing: error)
    if text.contains("CERTIFICATE_VERIFY_FAILED") { return Self.verification(certificate, name) }
    if ["PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION"].contains(where: { text.contains($0) }) {
      return Failure(.tlsVersion, context: "TLS 1.2 or newer with \(name)")
    }
    if error is IOError || text.contains("EOF during handshake") {
      return Failure(.tlsHandshake, context: "the server closed the connection during the handshake")
    }
    return Failure(.tlsHandshake, context: Self.reason(in: text))
  }

  private static func verification(_ certificate: NIOSSLCertificate?, _ name: String) -> Failure {
    let now = Int(Date().timeIntervalSince1970)
    if let certificate, Int(certificate.notValidAfter) < now {
      return Failure(.tlsExpired, context: "the certificate of \(name) has expired")
    }
    if let certificate, Int(certificate.notValidBefore) > now {
      return Failure(.tlsExpired, context: "the certificate of \(name) is not valid yet")
    }
    return Failure(.tlsUntrusted, context: "the certificate of \(name) does not lead to a trusted authority")
  }

  /// The library's own word for it, such as `SSLV3_ALERT_HANDSHAKE_FAILURE`.
  private static func reason(in text: String) -> String? {
    text.split { !($0.isLetter || $0.isNumber || $0 == "_") }.first { word in
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
}

/// Waits for the end of the handshake and then leaves the pipeline.
private final class HandshakeWatcher: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = ByteBuffer

  private var promise: EventLoopPromise<String>?
  private let handler: NIOSSLClientHandler
  private let requirement: TLSRequirement

  init(promise: EventLoopPromise<String>, handler: NIOSSLClientHandler, requirement: TLSRequirement) {
    self.promise = promise
    self.handler = handler
    self.requirement = requirement
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .handshakeCompleted? = event as? TLSUserEvent {
      guard let certificate = handler.peerCertificate, certificate.identity.isFor(requirement.serverName) else {
        return fail(
          Failure(.tlsNameMismatch, context: "the certificate is not for \(requirement.serverName)"))
      }
      let version = handler.tlsVersion.map { String(describing: $0) } ?? "TLS"
      promise?.succeed(version)
      promise = nil
      context.fireUserInboundEventTriggered(event)
      context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
      return
    }
    context.fireUserInboundEventTriggered(event)
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) {
    fail(NIOSSLProvider.diagnose(error, certificate: handler.peerCertificate, requirement))
    context.fireErrorCaught(error)
  }

  func channelInactive(context: ChannelHandlerContext) {
    fail(Failure(.tlsHandshake, context: "the server closed the connection during the handshake"))
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) {
    fail(Failure(.tlsHandshake, context: "the connection was closed during the handshake"))
  }

  private func fail(_ failure: Failure) {
    promise?.fail(failure)
    promise = nil
  }
}
