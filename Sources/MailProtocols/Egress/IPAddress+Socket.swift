import NIOCore
import PostriderCore

extension IPAddress {
  /// The address with a port, as the system wants it.
  func socketAddress(port: Int) throws -> SocketAddress {
    try SocketAddress(packedIPAddress: ByteBuffer(bytes: octets), port: port)
  }
}
