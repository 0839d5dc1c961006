import NIOCore
import Testing

@testable import MailProtocols

@Suite("TLS: the server's first message (RFC 8446 section 4.1.3)")
struct ServerHelloTests {
  /// A hello of TLS 1.3 with AES-128 and the extensions key_share and supported_versions.
  private static let modern: [UInt8] = {
    let extensions: [UInt8] = [0, 51, 0, 3, 1, 2, 3, 0, 43, 0, 2, 3, 4]
    let body: [UInt8] =
      [3, 3] + Array(repeating: 9, count: 32) + [2, 1, 1] + [0x13, 0x01, 0, 0, UInt8(extensions.count)] + extensions
    return record([2, 0, 0, UInt8(body.count)] + body)
  }()

  private static func record(_ content: [UInt8], type: UInt8 = 22) -> [UInt8] {
    [type, 3, 3, UInt8(content.count >> 8), UInt8(content.count & 255)] + content
  }

  private func read(_ octets: some Collection<UInt8>) -> ServerHello.Reading {
    ServerHello.read(ByteBuffer(bytes: octets))
  }

  @Test("its version and cipher suite, whatever follows")
  func whole() {
    #expect(read(Self.modern) == .hello(ServerHello(version: 0x0304, cipherSuite: 0x1301)))
    #expect(read(Self.modern + [20, 3, 3, 0, 1, 1]) == .hello(ServerHello(version: 0x0304, cipherSuite: 0x1301)))
  }

  @Test("cut anywhere, more is waited for")
  func cut() {
    for count in Self.modern.indices { #expect(read(Self.modern.prefix(count)) == .incomplete, "\(count)") }
  }

  @Test(
    "what is no hello",
    arguments: [
      record([2, 40], type: 21), Array("+OK ready\r\n".utf8), record([11, 0, 0, 1, 0]), record([2, 0, 0, 1, 0]),
      record([]), record([2, 0, 16, 0]),
    ])
  func others(octets: [UInt8]) { #expect(read(octets) == .none) }

  @Test("a record that never ends is not kept")
  func endless() {
    #expect(read([22, 3, 3, 255, 255, 2, 255, 255, 255] + Array(repeating: 0, count: 4_000)) == .none)
  }
}
