package schemas

// RowVersion is the version of the rows of all tables, for readers that get rows
// without a database around them. It rises when a column is removed or changes its
// meaning or type; a column that is added does not raise it.
const RowVersion = 1
