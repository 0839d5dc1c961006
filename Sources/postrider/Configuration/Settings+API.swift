import AdminServer

extension Settings {
  /// Certificate and key of the API; `nil` for plain HTTP. Throws ``Settings/Problems`` when one of them is missing.
  func apiTLS() throws -> TLSFiles? {
    let (certificate, key) = (text(.apiCertificateFile), text(.apiKeyFile))
    if certificate == nil && key == nil { return nil }
    guard let certificate, let key else {
      let missing = certificate == nil ? Setting.apiCertificateFile : .apiKeyFile
      throw Problems(lines: ["\(missing.environmentName): is required, because the other file of TLS is named"])
    }
    return TLSFiles(certificateChain: certificate, privateKey: key)
  }
}
