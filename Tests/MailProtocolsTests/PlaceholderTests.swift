import Testing

@Test func placeholderMailProtocols() {}
