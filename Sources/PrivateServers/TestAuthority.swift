import FoundationEssentials

/// A throw-away certificate authority for the TLS of private servers.
///
/// Made by the `openssl` command; keys are P-256. Its key lies in its directory (mode 0600): trust its certificate in
/// tests and sandboxes only.
public struct TestAuthority: Sendable {
  /// When a certificate is valid.
  public enum Validity: Hashable, Sendable {
    /// From yesterday on, for ten years.
    case current
    /// Until yesterday.
    case expired
    /// From tomorrow on.
    case notYet
  }

  /// A server's or client's certificate with its key, in files readable by the servers' user.
  public struct Leaf: Hashable, Sendable {
    /// The certificate's file (PEM).
    public let certificatePath: String
    /// The private key's file (PEM, not encrypted), mode 0600.
    public let keyPath: String
    /// The certificate (PEM).
    public var certificatePEM: String { Files.read(certificatePath) ?? "" }
    /// The private key (PEM, not encrypted).
    public var keyPEM: String { Files.read(keyPath) ?? "" }
  }

  /// The authority's certificate (PEM).
  public let certificatePEM: String
  /// The authority's certificate's file.
  public var certificatePath: String { directory + "/ca.pem" }
  private let directory: String
  private let owner: ServerUser?
  private let openssl: String

  /// Opens the authority in a directory, creating it when there is none.
  ///
  /// Throws ``PrivateServerError/missingProgram(name:looked:install:)`` without `openssl`.
  public static func open(in directory: String, owner: ServerUser? = nil) async throws -> TestAuthority {
    let openssl = try Programs.find("openssl", variable: "POSTRIDER_OPENSSL_BIN", package: "openssl")
    try Files.ensureDirectory(directory, mode: 0o700, owner: owner)
    if !Files.exists(directory + "/ca.pem") {
      try Files.write(rootConfiguration, to: directory + "/root.cnf")
      try await Command.run(
        openssl,
        [
          "req", "-x509", "-config", "root.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
          "-keyout", "ca.key", "-out", "ca.new", "-days", "3650", "-sha256",
        ], workingDirectory: directory)
      // The certificate appears last: where it is, the key is too.
      try Files.write(Files.read(directory + "/ca.new") ?? "", to: directory + "/ca.pem", mode: 0o644, owner: owner)
      Files.remove(directory + "/ca.new")
    }
    guard let pem = Files.read(directory + "/ca.pem") else {
      throw PrivateServerError.unusable(path: directory, reason: "its certificate cannot be read: \(Files.lastError)")
    }
    return TestAuthority(certificatePEM: pem, directory: directory, owner: owner, openssl: openssl)
  }

  /// A certificate for host names and IPv4 or IPv6 addresses (as subject alternative names, the only place that is
  /// looked at: RFC 6125 section 6.4.4). Made once per `label`.
  public func leaf(
    _ label: String, for names: [String], validity: Validity = .current
  ) async throws -> Leaf {
    let folder = directory + "/" + label
    let leaf = Leaf(certificatePath: folder + "/cert.pem", keyPath: folder + "/key.pem")
    if Files.exists(leaf.certificatePath) { return leaf }
    try Files.ensureDirectory(folder, mode: 0o700, owner: owner)
    try Files.write(leafConfiguration(for: names), to: folder + "/leaf.cnf")
    try Files.write("", to: folder + "/index.txt")
    try await Command.run(
      openssl,
      [
        "req", "-new", "-config", "leaf.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", "key.pem", "-out", "request.pem", "-sha256",
      ], workingDirectory: folder)
    let (from, until) = dates(of: validity)
    // `x509 -req` cannot set both dates before OpenSSL 3.4; `ca` always could.
    try await Command.run(
      openssl,
      [
        "ca", "-batch", "-notext", "-config", "leaf.cnf", "-cert", "../ca.pem", "-keyfile", "../ca.key",
        "-startdate", from, "-enddate", until, "-in", "request.pem", "-out", "new.pem",
      ], workingDirectory: folder)
    try Files.own(leaf.keyPath, by: owner)
    try Files.write(Files.read(folder + "/new.pem") ?? "", to: leaf.certificatePath, mode: 0o644, owner: owner)
    return leaf
  }

  private func dates(of validity: Validity) -> (String, String) {
    let day = 86_400.0
    let from: Double
    let until: Double
    switch validity {
    case .current: (from, until) = (-day, 3_650 * day)
    case .expired: (from, until) = (-30 * day, -day)
    case .notYet: (from, until) = (day, 30 * day)
    }
    func text(_ offset: Double) -> String {
      let date = Date(timeIntervalSinceNow: offset).formatted(.iso8601)
      return date.filter { $0.isNumber || $0 == "Z" }
    }
    return (text(from), text(until))
  }

  private static let rootConfiguration = """
    [req]
    prompt = no
    distinguished_name = name
    x509_extensions = root
    [name]
    commonName = Postrider test authority
    [root]
    basicConstraints = critical, CA:TRUE
    keyUsage = critical, keyCertSign, cRLSign
    subjectKeyIdentifier = hash

    """

  private func leafConfiguration(for names: [String]) -> String {
    let alternatives = names.map { name in
      let isAddress = name.contains(":") || name.allSatisfy { $0.isNumber || $0 == "." }
      return (isAddress ? "IP:" : "DNS:") + name
    }
    return """
      [req]
      prompt = no
      distinguished_name = name
      [name]
      commonName = \(names.first ?? "nobody")
      [ca]
      default_ca = authority
      [authority]
      database = index.txt
      new_certs_dir = .
      rand_serial = yes
      default_md = sha256
      unique_subject = no
      policy = policy
      x509_extensions = leaf
      [policy]
      commonName = supplied
      [leaf]
      basicConstraints = critical, CA:FALSE
      keyUsage = critical, digitalSignature
      extendedKeyUsage = serverAuth, clientAuth
      subjectKeyIdentifier = hash
      authorityKeyIdentifier = keyid
      subjectAltName = \(alternatives.joined(separator: ", "))

      """
  }
}
