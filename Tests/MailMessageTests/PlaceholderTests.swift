import Testing

@Test func placeholderMailMessage() {}
