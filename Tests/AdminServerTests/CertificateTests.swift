import Foundation
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import PostriderTesting
import Synchronization
import Telemetry
import Testing

@testable import AdminServer

/// A TLS connection that can be asked again and again, and the certificate that it was shown.
private struct TLSConnection {
  let channel: NIOAsyncChannel<ByteBuffer, ByteBuffer>
  private let shown: Shown

  static func open(_ address: BoundAddress) async throws -> TLSConnection {
    guard case .tcp(let host, let port, tls: true) = address else { throw CancellationError() }
    let shown = Shown()
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.certificateVerification = .noHostnameVerification
    let context = try NIOSSLContext(configuration: configuration)
    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .connect(host: host, port: port) { channel in
        channel.eventLoop.makeCompletedFuture {
          let handler = try NIOSSLClientHandler(
            context: context, serverHostname: nil,
            customVerificationCallback: { certificates, promise in
              shown.value.withLock { $0 = (try? certificates.first?.toDERBytes()) ?? [] }
              promise.succeed(.certificateVerified)
            })
          try channel.pipeline.syncOperations.addHandler(handler)
          return try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
        }
      }
    return TLSConnection(channel: channel, shown: shown)
  }

  var certificate: [UInt8] { shown.value.withLock { $0 } }

  /// The certificate of a new connection, which has asked one question.
  static func certificate(of address: BoundAddress) async throws -> [UInt8] {
    let connection = try await open(address)
    return try await connection.channel.executeThenClose { (inbound, outbound) async throws -> [UInt8] in
      var answers = inbound.makeAsyncIterator()
      #expect(try await ask(outbound, &answers).hasPrefix("HTTP/1.1 200"))
      return connection.certificate
    }
  }

  /// Asks, and reads the answer to its end: what is left of it would be taken for the next one.
  static func ask(
    _ outbound: NIOAsyncChannelOutboundWriter<ByteBuffer>,
    _ answers: inout NIOAsyncChannelInboundStream<ByteBuffer>.AsyncIterator
  ) async throws -> String {
    try await outbound.write(ByteBuffer(string: "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"))
    var answer = ""
    while !isWhole(answer) { answer += String(buffer: try #require(try await answers.next())) }
    return answer
  }

  private static func isWhole(_ answer: String) -> Bool {
    let parts = answer.components(separatedBy: "\r\n\r\n")
    let field = parts[0].lowercased().components(separatedBy: "content-length:")
    guard parts.count > 1, field.count > 1, let length = Int(field[1].drop { $0 == " " }.prefix { $0.isNumber }) else {
      return false
    }
    return parts[1].utf8.count >= length
  }
}

/// The certificate that a server showed.
private final class Shown: Sendable {
  let value = Mutex<[UInt8]>([])
}

@Suite("The certificate of the listener is read anew (D174)", .timeLimit(.minutes(5)))
struct CertificateTests {
  private func der(_ path: String) throws -> [UInt8] {
    try #require(try NIOSSLCertificate.fromPEMFile(path).first).toDERBytes()
  }

  /// Makes a certificate beside the files and moves it to their place, as renewals do.
  private func exchange(_ files: TLSFiles) throws {
    try makeCertificate(files.certificateChain + ".new", files.privateKey + ".new")
    for path in [files.privateKey, files.certificateChain] { #expect(rename(path + ".new", path) == 0) }
  }

  @Test("a new certificate is shown to new connections, an old connection goes on; a broken file changes nothing")
  func renewal() async throws {
    let directory = try TemporaryDirectory()
    let files = TLSFiles(certificateChain: directory.path + "/c.pem", privateKey: directory.path + "/k.pem")
    try makeCertificate(files.certificateChain, files.privateKey)
    let log = CapturedLog()
    let registry = PrometheusRegistry()
    var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0, tls: files))
    configuration.certificateInterval = .milliseconds(50)
    let server = AdminServer(
      configuration: configuration, store: FakeAdminStore(), queue: FakeQueue(), registry: registry, logger: log.logger)
    try await withRunning(server) {
      let address = try await server.listening()[0]
      let first = try der(files.certificateChain)
      let old = try await TLSConnection.open(address)
      try await old.channel.executeThenClose { (inbound, outbound) async throws -> Void in
        var answers = inbound.makeAsyncIterator()
        #expect(try await TLSConnection.ask(outbound, &answers).hasPrefix("HTTP/1.1 200"))
        #expect(old.certificate == first)

        try exchange(files)
        let second = try der(files.certificateChain)
        #expect(second != first)
        #expect(await eventually { (try? await TLSConnection.certificate(of: address)) == second })
        #expect(try await TLSConnection.ask(outbound, &answers).hasPrefix("HTTP/1.1 200"))
        #expect(
          await registry.scrape().contains(
            "postrider_api_certificate_expires_timestamp \(Int(try files.expiry().timeIntervalSince1970))"))

        // Between the two files of a renewal somebody may have looked.
        func told() -> Int { log.text.components(separatedBy: "served on").count - 1 }
        let before = told()
        // Half a certificate; then a key that belongs to another one.
        try Data("-----BEGIN CERTIFICATE-----\nMIIB".utf8).write(
          to: URL(filePath: files.certificateChain), options: .atomic)
        #expect(await eventually { told() == before + 1 })
        #expect(try await TLSConnection.certificate(of: address) == second)
        try makeCertificate(directory.path + "/other.pem", files.privateKey + ".new")
        #expect(rename(files.privateKey + ".new", files.privateKey) == 0)
        #expect(await eventually { told() == before + 2 })
        #expect(try await TLSConnection.certificate(of: address) == second)
        // However often they are tried again, told once for each state of the files.
        for _ in 1...3 { server.reloadCertificates() }
        #expect(told() == before + 2)
        #expect(!log.text.contains("PRIVATE"))

        try exchange(files)
        let third = try der(files.certificateChain)
        #expect(await eventually { (try? await TLSConnection.certificate(of: address)) == third })
        #expect(try await TLSConnection.ask(outbound, &answers).hasPrefix("HTTP/1.1 200"))
      }
    }
  }

  @Test("it is read at once when the server is told to, as by SIGHUP")
  func told() async throws {
    let directory = try TemporaryDirectory()
    let files = TLSFiles(certificateChain: directory.path + "/c.pem", privateKey: directory.path + "/k.pem")
    try makeCertificate(files.certificateChain, files.privateKey)
    var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0, tls: files))
    configuration.certificateInterval = .seconds(3_600)
    let server = AdminServer(
      configuration: configuration, store: FakeAdminStore(), queue: FakeQueue(), logger: LiveServerTests.quiet)
    try await withRunning(server) {
      let address = try await server.listening()[0]
      let first = try await TLSConnection.certificate(of: address)
      try exchange(files)
      #expect(try await TLSConnection.certificate(of: address) == first)
      server.reloadCertificates()
      #expect(try await TLSConnection.certificate(of: address) == (try der(files.certificateChain)))
    }
  }
}
