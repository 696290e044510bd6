profile.domain     grid.example.org
F(1)
#define F(a,b) a
a.five F(1)
