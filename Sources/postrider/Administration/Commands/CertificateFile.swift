import FoundationEssentials
import MailProtocols

/// Files with certificates that are trusted instead of the system's.
enum CertificateFile {
  /// The file's text, at most 1 MiB, with at least one certificate that TLS can use. Throws ``ClientError/usage(_:)``:
  /// at the server it would look as if the server's certificate were to blame.
  static func read(_ path: String) throws -> String {
    guard let data = FileManager.default.contents(atPath: path), data.count <= 1 << 20,
      let text = String(validating: data, as: UTF8.self)
    else { throw ClientError.usage("\(Terminal.safe(path)) cannot be read as text of at most 1 MiB") }
    guard CACertificates.isReadable(text) else {
      throw ClientError.usage(
        "\(Terminal.safe(path)) holds no certificate in PEM form (-----BEGIN CERTIFICATE-----), or one that is damaged")
    }
    return text
  }
}
