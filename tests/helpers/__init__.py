"""What tests share: small models, ways to call the commands, fakes, and scripts that write parts of the documentation."""
