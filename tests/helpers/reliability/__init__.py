"""What tests of reliability share: faults, hostile files, random checkpoints, and the record of what was tried."""
