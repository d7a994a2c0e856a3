// Before the first paint: the theme that the reader chose, if the browser has stored it.
(function(){"use strict";
try{var chosen=localStorage.getItem("hyperzero-theme");
if(chosen==="light"||chosen==="dark"){document.documentElement.dataset.theme=chosen;}}
catch(error){}
})();
