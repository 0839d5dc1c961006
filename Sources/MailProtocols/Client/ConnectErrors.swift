import NIOCore
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Sorts why a connection could not be opened.
enum ConnectErrors {
  static func sort(_ error: any Error, _ context: String) -> Failure {
    if let failure = error as? Failure { return failure }
    if case .connectTimeout? = error as? ChannelError { return Failure(.tcpTimeout, context: context) }
    guard let error = error as? IOError else { return Failure(.tcpUnreachable, context: context) }
    return switch error.errnoCode {
    case ECONNREFUSED: Failure(.tcpRefused, context: context)
    case ETIMEDOUT: Failure(.tcpTimeout, context: context)
    case ECONNRESET, EPIPE: Failure(.tcpClosed, context: context)
    case EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL:
      // Ours, not the server's: no breaker may open because of it.
      Failure(.internalError, context: "\(context): no socket is free on this worker (errno \(error.errnoCode))")
    default: Failure(.tcpUnreachable, context: "\(context) (errno \(error.errnoCode))")
    }
  }
}
