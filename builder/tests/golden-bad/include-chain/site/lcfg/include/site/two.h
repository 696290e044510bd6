

wrong line here
