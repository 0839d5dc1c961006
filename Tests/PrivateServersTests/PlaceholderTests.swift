import Testing

@Test func placeholderPrivateServers() {}
