"""The operations of a forward pass in array API terms, for any library to run or replace."""
