import NIOPosix
import PostriderCore
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Looks up a server's addresses. Called once per connection; every address it gives is checked.
public protocol MailResolver: Sendable {
  /// The addresses of a host in order of preference. Throws `dns.temporary` or `dns.unknown-host`.
  func resolve(_ host: String) async throws(Failure) -> [IPAddress]
}

/// The system's resolver (`getaddrinfo`) on threads of its own: a slow name server holds none that others need.
public struct SystemResolver: MailResolver {
  /// Threads for lookups in the process, and how many lookups may wait for one.
  private static let threads = 16
  private static let maximumWaiting = 4_096
  private static let waiting = Atomic<Int>(0)
  private static let pool: NIOThreadPool = {
    let pool = NIOThreadPool(numberOfThreads: threads)
    pool.start()
    return pool
  }()

  #if canImport(Glibc)
    // netdb.h hides both behind _GNU_SOURCE.
    private static let noData: Int32 = -5
    private static let addressFamily: Int32 = -9
  #else
    private static let noData = EAI_NODATA
    private static let addressFamily = EAI_FAMILY
  #endif

  /// Uses the system's configuration.
  public init() {}

  /// See ``MailResolver/resolve(_:)``. A literal address is taken as it is.
  public func resolve(_ host: String) async throws(Failure) -> [IPAddress] {
    if let address = IPAddress(host) { return [address] }
    guard Self.waiting.add(1, ordering: .relaxed).newValue <= Self.maximumWaiting else {
      Self.waiting.subtract(1, ordering: .relaxed)
      throw Failure(.dnsTemporary, context: "too many name lookups wait in this process")
    }
    defer { Self.waiting.subtract(1, ordering: .relaxed) }
    do {
      return try await Self.pool.runIfActive { try Self.lookUp(host) }
    } catch let failure as Failure {
      throw failure
    } catch {
      throw Failure(.dnsTemporary, context: "the lookup of \(host) was interrupted")
    }
  }

  private static func lookUp(_ host: String) throws(Failure) -> [IPAddress] {
    var hints = addrinfo()
    hints.ai_family = AF_UNSPEC
    #if canImport(Glibc)
      hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    #else
      hints.ai_socktype = SOCK_STREAM
    #endif
    hints.ai_flags = AI_ADDRCONFIG
    var list: UnsafeMutablePointer<addrinfo>?
    var code = getaddrinfo(host, nil, &hints, &list)
    if code == EAI_NONAME || code == addressFamily {
      // Without a configured address family (a bare container) AI_ADDRCONFIG hides what is there.
      hints.ai_flags = 0
      code = getaddrinfo(host, nil, &hints, &list)
    }
    defer { if let list { freeaddrinfo(list) } }
    guard code == 0 else { throw failure(code, host) }
    var addresses: [IPAddress] = []
    var next = list
    while let entry = next {
      if let address = address(of: entry.pointee), !addresses.contains(address) { addresses.append(address) }
      next = entry.pointee.ai_next
    }
    if addresses.isEmpty { throw Failure(.dnsUnknownHost, context: "\(host) has no address") }
    return addresses
  }

  private static func failure(_ code: Int32, _ host: String) -> Failure {
    switch code {
    case EAI_NONAME, noData, addressFamily: Failure(.dnsUnknownHost, context: host)
    default: Failure(.dnsTemporary, context: "\(host): \(String(cString: gai_strerror(code)))")
    }
  }

  private static func address(of entry: addrinfo) -> IPAddress? {
    guard let address = entry.ai_addr else { return nil }
    switch entry.ai_family {
    case AF_INET:
      return address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { pointer in
        withUnsafeBytes(of: pointer.pointee.sin_addr) { IPAddress(octets: Array($0)) }
      }
    case AF_INET6:
      return address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { pointer in
        withUnsafeBytes(of: pointer.pointee.sin6_addr) { IPAddress(octets: Array($0)) }
      }
    default: return nil
    }
  }
}
