import NIOCore

/// What a TLS server chose, from the first message it sends, which is in the clear (RFC 8446 section 4.1.3, RFC 5246
/// section 7.4.1.3).
///
/// swift-nio-ssl 2.37 does not tell the cipher suite, nor anything of a handshake that failed. Only shown to people:
/// nothing is decided by it.
struct ServerHello: Hashable, Sendable {
  /// `0x0303` for TLS 1.2, `0x0304` for TLS 1.3.
  var version: UInt16
  /// The cipher suite's number in IANA's registry.
  var cipherSuite: UInt16

  /// What the first octets of a connection hold.
  enum Reading: Hashable, Sendable {
    /// A hello may be there once more has come.
    case incomplete
    /// No hello, or none that can be read.
    case none
    case hello(ServerHello)
  }

  /// A hello is a tenth of that; further octets are not waited for.
  private static let maximumOctets = 2_048
}

extension ServerHello {
  /// Reads the first record of a connection. Certificates may follow the hello in it.
  static func read(_ octets: ByteBuffer) -> Reading {
    var octets = octets
    guard let type: UInt8 = octets.readInteger() else { return .incomplete }
    // 22 handshake; 21 would be an alert.
    guard type == 22 else { return .none }
    guard let (_, length) = octets.readMultipleIntegers(as: (UInt16, UInt16).self) else { return .incomplete }
    var record = octets.getSlice(at: octets.readerIndex, length: min(Int(length), octets.readableBytes)) ?? ByteBuffer()
    guard let (message, messageLength) = Self.head(&record) else {
      return octets.readableBytes < Int(length) ? .incomplete : .none
    }
    guard message == 2 else { return .none }
    guard var body = record.readSlice(length: messageLength) else {
      return octets.readableBytes < min(Int(length), maximumOctets) ? .incomplete : .none
    }
    guard let hello = ServerHello(&body) else { return .none }
    return .hello(hello)
  }

  /// Type and length of a handshake message.
  private static func head(_ record: inout ByteBuffer) -> (type: UInt8, length: Int)? {
    guard let (type, high, low) = record.readMultipleIntegers(as: (UInt8, UInt8, UInt16).self) else { return nil }
    return (type, Int(high) << 16 | Int(low))
  }

  /// legacy_version, random, session id, cipher suite, compression, extensions.
  private init?(_ body: inout ByteBuffer) {
    guard let legacyVersion: UInt16 = body.readInteger(), body.readSlice(length: 32) != nil,
      let sessionLength: UInt8 = body.readInteger(), body.readSlice(length: Int(sessionLength)) != nil,
      let (suite, _) = body.readMultipleIntegers(as: (UInt16, UInt8).self)
    else { return nil }
    version = legacyVersion
    cipherSuite = suite
    guard body.readInteger(as: UInt16.self) != nil else { return }
    // TLS 1.3 says its version in the extension supported_versions (43).
    while let (type, length) = body.readMultipleIntegers(as: (UInt16, UInt16).self),
      let data = body.readSlice(length: Int(length))
    {
      if type == 43, let selected = data.getInteger(at: data.readerIndex, as: UInt16.self) { version = selected }
    }
  }
}
