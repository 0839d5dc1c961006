import FoundationEssentials
import Logging
import NIOSSL
import Synchronization
import Telemetry

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The certificate and key of a listener, read anew when their files change.
///
/// A connection keeps what it began with. Files that cannot be used change nothing: the former certificate goes on
/// being served, and the reason is logged once.
final class ServerCertificate: Sendable {
  /// What says that a file is another one, as after a renewal or the exchange of a mounted secret.
  private struct Stamp: Hashable {
    var device: UInt64
    var inode: UInt64
    var size: Int64
    var seconds: Int
    var nanoseconds: Int

    /// `nil` when there is no such file.
    init?(_ path: String) {
      var status = stat()
      guard stat(path, &status) == 0 else { return nil }
      device = UInt64(status.st_dev)
      inode = UInt64(status.st_ino)
      size = Int64(status.st_size)
      #if canImport(Darwin)
        (seconds, nanoseconds) = (status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec)
      #else
        (seconds, nanoseconds) = (Int(status.st_mtim.tv_sec), Int(status.st_mtim.tv_nsec))
      #endif
    }
  }

  fileprivate struct Loaded {
    var context: NIOSSLContext
    /// Seconds since 1970.
    var expires: Int
  }

  private struct State {
    var loaded: Loaded
    /// The files as they were when they were last tried, whatever came of it.
    var tried: [Stamp?]
  }

  private let files: TLSFiles
  private let logger: Logger
  private let state: Mutex<State>

  /// Reads the files. Throws ``ListenError/tls(reason:)``.
  init(_ files: TLSFiles, logger: Logger) throws {
    self.files = files
    self.logger = logger
    let stamps = Self.stamps(files)
    state = Mutex(State(loaded: try Self.load(files), tried: stamps))
  }

  /// For the next connection.
  var context: NIOSSLContext { state.withLock { $0.loaded.context } }

  /// When the certificate that is served ends, in seconds since 1970.
  var expires: Int { state.withLock { $0.loaded.expires } }

  /// Looks at the files every so often, until it is cancelled.
  func watch(every interval: Duration) async {
    // Only cancellation ends a sleep early.
    while (try? await Task.sleep(for: interval)) != nil {
      guard hasChanged else { continue }
      // Certificate and key are two files: whoever exchanges them may be at the second one now.
      var stamps = Self.stamps(files)
      for _ in 0..<10 {
        guard (try? await Task.sleep(for: min(interval, .milliseconds(500)))) != nil else { return }
        let next = Self.stamps(files)
        if next == stamps { break }
        stamps = next
      }
      reload()
    }
  }

  private var hasChanged: Bool {
    let stamps = Self.stamps(files)
    return state.withLock { $0.tried != stamps }
  }

  /// Reads the files now. Says whether they can be used; when not, what was served goes on.
  @discardableResult
  func reload() -> Bool {
    // Before the files are read: a change meanwhile is seen at the next look.
    let stamps = Self.stamps(files)
    do {
      let loaded = try Self.load(files)
      state.withLock { $0 = State(loaded: loaded, tried: stamps) }
      logger.notice(
        "The certificate was read anew; new connections get it",
        metadata: [LogKeys.file: "\(files.certificateChain)"])
      return true
    } catch {
      let isNews = state.withLock { state in
        defer { state.tried = stamps }
        return state.tried != stamps
      }
      if isNews {
        logger.error(
          "The new certificate or its key cannot be used; the former one is served on",
          metadata: [
            LogKeys.file: "\(files.certificateChain)", LogKeys.keyFile: "\(files.privateKey)",
            LogKeys.error: "\(error)",
          ])
      }
      return false
    }
  }

  private static func stamps(_ files: TLSFiles) -> [Stamp?] {
    [Stamp(files.certificateChain), Stamp(files.privateKey)]
  }

  fileprivate static func load(_ files: TLSFiles) throws(ListenError) -> Loaded {
    do {
      let chain = try NIOSSLCertificate.fromPEMFile(files.certificateChain)
      let key = try NIOSSLPrivateKey(file: files.privateKey, format: .pem)
      var tls = TLSConfiguration.makeServerConfiguration(
        certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
      tls.minimumTLSVersion = .tlsv12
      // Also finds out whether the two belong together.
      return Loaded(
        context: try NIOSSLContext(configuration: tls), expires: chain.first.map { Int($0.notValidAfter) } ?? 0)
    } catch {
      throw ListenError.tls(reason: "\(error)")
    }
  }
}

extension TLSFiles {
  /// Reads both files as the server would, and says when the certificate ends. Throws ``ListenError/tls(reason:)``.
  public func expiry() throws(ListenError) -> Date {
    Date(timeIntervalSince1970: Double(try ServerCertificate.load(self).expires))
  }
}
