import NIOSSL

/// Certificates that are trusted instead of the system's.
public enum CACertificates {
  /// Whether a text holds certificates that TLS can use: PEM, one or more. What else stands around them does not count.
  public static func isReadable(_ pem: String) -> Bool { read(pem) != nil }

  /// The certificates; `nil` when there is none, or one that cannot be read.
  static func read(_ pem: String) -> [NIOSSLCertificate]? {
    guard let certificates = try? NIOSSLCertificate.fromPEMBytes(Array(pem.utf8)), !certificates.isEmpty else {
      return nil
    }
    return certificates
  }
}
