import CGMime

/// Addresses in other scripts than ASCII (RFC 5890, RFC 6531).
public enum InternationalAddress {
  /// The address as it goes over the wire: its domain in A-labels (`info@bücher.example` → `info@xn--bcher-kva.example`).
  ///
  /// A local part beyond ASCII stays as it is; only servers with SMTPUTF8 take it. `nil` when the domain is none that
  /// could exist (RFC 5891).
  public static func wireForm(_ address: String) -> String? {
    if address.utf8.allSatisfy({ $0 < 0x80 }) { return address }
    GMimeLibrary.start()
    // The library converts with libidn2, and hands back what it was given where that fails.
    guard let parsed = internet_address_mailbox_new(nil, address), let mailbox = postrider_as_mailbox(parsed),
      let object = Owned(mailbox), let converted = internet_address_mailbox_get_idn_addr(object.pointer)
    else { return nil }
    let text = String(cString: converted)
    guard let at = text.lastIndex(of: "@"), text[at...].utf8.allSatisfy({ $0 < 0x80 }) else { return nil }
    return text
  }
}
